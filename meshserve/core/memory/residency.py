"""The decisions about one worker's memory: events in, commands out, no I/O.

In any order of events (`check` asserts it): copies that stay never exceed the budget, a leased
copy is never freed, each request is answered exactly once, one load serves all requests that wait
for it, and no load is forgotten.
"""

from __future__ import annotations

from typing import assert_never

from meshserve import errors
from meshserve.core import backoff
from meshserve.core.memory import (
    admission,
    copies,
    copy_deaths,
    eviction,
    invariants,
    lease_requests,
    memory_pool,
    previous_copies,
    version_choice,
    waiters,
)
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import CopyMove, CopyPhase
from meshserve.core.values import model

SWEEPS_PER_IDLE_TIME = 16
"""Searches for idle copies within `idle_unload_s`; few, because each looks at every copy."""

REUSED_DIVISOR = 16
"""At most 1/16 of the budget counts as free although it lies in gaps of the allocator's heap.

The next copies will fill these gaps, so no copy is evicted to make up for them: each eviction would
leave more gaps, until the worker held nothing. The bound is for copies too big for the gaps.
"""


class Residency:
    """One worker's copies and requests. All times are seconds of one monotonic clock.

    `changed` collects the models whose report has changed since the reporter last cleared it.
    """

    def __init__(self, limits: copies.WorkerLimits, policy: eviction.Policy = eviction.lru) -> None:
        self.limits = limits
        self._out: list[ev.Command] = []
        self._pool = memory_pool.MemoryPool(limits, policy, self._out)
        self._waiters = waiters.Waiters(self._out)
        self.admission = admission.Admission(self._pool, self._waiters, limits)
        self._requests = lease_requests.LeaseRequests(
            self._pool, self._waiters, self.admission, limits
        )
        self._deaths = copy_deaths.CopyDeaths(self._pool, self._requests)
        self.bindings = self._requests.bindings
        self.copies = self._pool.copies
        self.account = self._pool.account
        self.counts = self._pool.counts
        self.changed = self._pool.changed
        self.history = self._pool.history
        self.previous = previous_copies.PreviousCopies(
            self.bindings, self.changed, lambda id_: self._forget(ev.ModelForgotten(id_))
        )
        # All pinned models, with or without a copy: a pin may come before the artifact.
        self._pinned: set[model.ModelId] = set()
        self._swept_s = 0.0  # when idle copies were last looked for

    def handle(self, event: ev.Event, now_s: float) -> list[ev.Command]:  # noqa: C901, PLR0912
        """Apply an event and return the commands that it causes, to be performed in order."""
        # Long, but in one function: mypy then proves that each event has its case.
        self._pool.now_s = now_s
        match event:
            case ev.LeaseReleased():  # first, because it is the only event of a hit
                self._release(event)
            case ev.LeaseRequested():
                self._request(event)
            case ev.RequesterLeft():
                self._remove_waiter(event)
            case ev.ArtifactFetched() | ev.FetchFailed():
                self._finish_fetch(event)
            case ev.CopyLoaded():
                self._finish_load(event)
            case ev.CopyLoadFailed():
                self._fail_load(event)
            case ev.CopyDied():
                self._deaths.record(event)
            case ev.CopyFreed() | ev.CopyOffloaded():
                self._finish_free_or_offload(event)
            case ev.LoadOverheadKnown():
                self._set_load_extra(event)
            case ev.CopyOnloaded():
                self._finish_onload(event)
            case ev.DeviceMoveFailed():
                self._fail_move(event)
            case ev.ModelForgotten():
                self._forget(event)
            case ev.PinSet():
                self._set_pin(event)
            case ev.UnloadRequested():
                self._unload(event)
            case ev.MemoryMeasured():
                self._record_memory(event)
            case ev.TimerFired():
                self._check_time()
            case _:
                assert_never(event)
        # Emptied, not replaced: all parts of residency append to this one list.
        commands = self._out.copy()
        self._out.clear()
        return commands

    # The hot path of a request for a ready copy: no event, no command

    def find_ready(self, id_: model.ModelId) -> str | None:
        """Return the key of the model's copy if it is ready to run."""
        binding = self.bindings.get(id_)
        key = binding.key if binding is not None else None
        is_ready = key is not None and self.copies[key].state is CopyPhase.READY
        return key if is_ready else None

    def lease(self, id_: model.ModelId, now_s: float) -> str | None:
        """Return the key of the model's copy, leased until LeaseReleased, if it is ready.

        Otherwise return None and change nothing; LeaseRequested then waits for it.
        """
        key = self.find_ready(id_)
        if key is not None:
            self.counts.hits += 1
            self._pool.acquire(self.copies[key], now_s)
        return key

    def record_use(self, key: str, now_s: float, uses: int = 1) -> None:
        """Count uses of a ready copy between two events, the last one at `now_s`.

        Must be called before the next event is handled, because that may free the copy.
        """
        self.counts.hits += uses
        self._pool.record_use(self.copies[key], now_s, uses)

    # State

    @property
    def is_short(self) -> bool:
        """Whether evicting all idle copies would free too little, or a load waits for long."""
        first = next(iter(self.admission.queue.values()), None)
        if first and self._pool.now_s - first.since_s > self.limits.patience_s / 2:
            return True
        return not model.NO_BYTES.fits_in(self.account.free_soon.plus(self.account.evictable))

    def check(self) -> None:
        """Assert all invariants of the current state."""
        assert not self._out, "a command was not handed out"
        invariants.check_copies(self.copies, self.bindings)
        invariants.check_bytes(self._pool, self.copies)
        invariants.check_admission(self.admission, self._pool, self.copies, self.limits)
        invariants.check_waiters(self._waiters, (*self.copies.values(), *self.bindings.values()))

    # Requests

    def _request(self, event: ev.LeaseRequested) -> None:
        key = self.lease(event.id, self._pool.now_s)
        if key is not None:
            self._out.append(ev.GrantLease(event.ticket, key))
            return
        self.counts.misses += 1
        self._requests.request(event.ticket, event.id)

    def _remove_waiter(self, event: ev.RequesterLeft) -> None:
        record = self._waiters.remove(event.ticket)
        if isinstance(record, copies.Copy):
            self._requests.reconsider(record)
            self.admission.admit()

    def _release(self, event: ev.LeaseReleased) -> None:
        if self._pool.release(self.copies[event.key]) and self.admission.queue:
            self.admission.admit()

    # Artifacts and names

    def _finish_fetch(self, event: ev.ArtifactFetched | ev.FetchFailed) -> None:
        binding = self._requests.end_fetch(event)
        if binding is None:
            return
        if isinstance(event, ev.FetchFailed):
            self._record_failure(binding, event.error)
        else:
            self._bind(binding, event)

    def _bind(self, binding: copies.Binding, artifact: ev.ArtifactFetched) -> None:
        """Bind the model to the copy of its artifact; its waiters wait for the copy from now on."""
        binding.failure, binding.key = None, artifact.key
        copy = self.copies.setdefault(artifact.key, copies.Copy(artifact.key, artifact.need))
        copy.apply_artifact(artifact)
        copy.names.add(binding.id)
        if binding.id in self._pinned:
            self._pool.pin(copy, binding.id)
        for ticket in self._waiters.take(binding):
            self._requests.request_copy(copy, ticket, binding.id)
        if copy.state is CopyPhase.READY:
            self.previous.drop(binding.id)
        self.admission.admit()

    def _forget(self, event: ev.ModelForgotten) -> None:
        """Unbind a model that is withdrawn, or declared anew with another artifact."""
        self._unbind(event)
        # A pin is the model's, not the artifact's: it outlives a replacement.
        if event.is_replaced or version_choice.is_previous(event.id):
            return
        self._pinned.discard(event.id)
        if event.keeps_copy:
            self.previous.supersede(event.id)
        else:
            self.previous.drop(event.id)

    def _unbind(self, event: ev.ModelForgotten) -> None:
        copy = self._requests.copy_of(event.id)
        binding = self.bindings.pop(event.id, None)
        if binding is None:
            return
        self.changed.add(event.id)
        tickets = self._waiters.take(copy or binding, event.id)
        if copy is not None:
            copy.names.discard(event.id)
            self._pool.unpin(copy, event.id)
            if event.keeps_copy and copy.is_good:
                self.previous.keep(event.id, copy)
            self._requests.reconsider(copy)
        if not event.is_replaced:
            message = f"model {event.id} was removed while requests waited for it"
            self._waiters.refuse(tickets, errors.ModelNotFound(message))
        elif tickets:
            self._requests.fetch_again(event.id, tickets)
        self.admission.admit()

    def _record_failure(self, record: waiters.Record, error: errors.MeshError) -> None:
        """Count a failed fetch or load, start its back-off, and refuse its waiters."""
        self.counts.load_failures += 1
        if record.failure is None:
            record.failure = copies.LoadFailure(error, backoff.Backoff(self.limits.backoff))
        record.failure.error = error
        record.failure.retry.record_failure(self._pool.now_s)
        self._pool.record_failure(record)
        self._requests.refuse_all(record, record.failure.refusal(self._pool.now_s))

    # Outcomes of commands

    def _finish_load(self, event: ev.CopyLoaded) -> None:
        copy = self.copies[event.key]
        self.counts.loads += 1
        self._pool.move(copy, CopyMove.LOADED)
        copy.record_load(event.footprint, event.load_s, self._pool.now_s)
        self.account.book(copy, event.footprint)
        # The load may have taken more than its hint; then other copies are evicted, or this one.
        if self._pool.keep_within_budget():
            self._grant_waiters(copy)
        else:
            self._expel(copy)
        self._finish_admission(copy)

    def _finish_onload(self, event: ev.CopyOnloaded) -> None:
        copy = self.copies[event.key]
        self._pool.move(copy, CopyMove.LOADED)
        self.account.book(copy, copy.need)
        self._grant_waiters(copy)
        self._finish_admission(copy)

    def _grant_waiters(self, copy: copies.Copy) -> None:
        """Give each waiter a lease on a copy that has become ready."""
        self._pool.record_arrival(copy)
        for ticket in self._waiters.take(copy):
            self._requests.grant(copy, ticket)
        self._pool.update(copy)
        # A tuple, because `drop` takes names away.
        for id_ in tuple(copy.names):
            if not version_choice.is_previous(id_):
                self.previous.drop(id_)

    def _expel(self, copy: copies.Copy) -> None:
        """Free a copy that turned out too big for the room that can be made now.

        Its waiters go on waiting for room, unless the budget can never be enough.
        """
        self._pool.note_too_big(copy)
        self._pool.free(copy)
        too_big = self._pool.too_big_error(copy, self.account.overhead_min_bytes)
        if too_big is not None:
            self._requests.refuse_all(copy, too_big)

    def _finish_admission(self, copy: copies.Copy) -> None:
        self.admission.finish(copy)
        self.admission.admit()

    def _fail_load(self, event: ev.CopyLoadFailed) -> None:
        copy = self.copies[event.key]
        was_stuck = copy.state is CopyPhase.STUCK
        self._pool.move(copy, CopyMove.LOAD_FAILED)
        self.account.book(copy, model.NO_BYTES)
        copy.is_unload_requested = False
        if was_stuck and copy.failure:
            # The time-out was counted as a failure already, but this error says more.
            copy.failure.error = event.error
        else:
            self._record_failure(copy, event.error)
        self._pool.update(copy)
        self._finish_admission(copy)

    def _finish_free_or_offload(self, event: ev.CopyFreed | ev.CopyOffloaded) -> None:
        """Give the copy's memory back, and queue the copy again if requests wait for it by now."""
        copy = self.copies[event.key]
        if isinstance(event, ev.CopyFreed):
            self._pool.record_freed(copy)
        else:
            self._pool.record_offloaded(copy)
        if copy.waiters:
            self.admission.enqueue(copy)
        else:
            self._pool.update(copy)
        self.admission.admit()

    def _fail_move(self, event: ev.DeviceMoveFailed) -> None:
        copy = self.copies[event.key]
        self._pool.abandon(copy)
        self._finish_admission(copy)

    def _set_load_extra(self, event: ev.LoadOverheadKnown) -> None:
        copy = self.copies.get(event.key)
        if copy is not None:
            copy.set_load_extra(event.load_extra_bytes)
            self.admission.admit()

    # Admin requests

    def _set_pin(self, event: ev.PinSet) -> None:
        """Pin or unpin the model's copy, now and whenever its artifact is bound later."""
        copy = self._requests.copy_of(event.id)
        if event.is_pinned:
            self._pinned.add(event.id)
            if copy is not None:
                self._pool.pin(copy, event.id)
        else:
            self._pinned.discard(event.id)
            if copy is not None:
                self._pool.unpin(copy, event.id)
                self._pool.update(copy)
        self.admission.admit()

    def _unload(self, event: ev.UnloadRequested) -> None:
        copy = self._requests.copy_of(event.id)
        if copy is not None and copy.is_in_memory and not copy.pins:
            copy.is_unload_requested = True
            self._pool.update(copy)

    # Memory and time

    def _record_memory(self, event: ev.MemoryMeasured) -> None:
        """Subtract the process's overhead from the budget, and evict copies that no longer fit."""
        loading = [
            copy for copy in self.admission.in_progress.values() if copy.state is CopyPhase.LOADING
        ]
        reused_bytes = min(event.free_bytes, self.account.budget.host_bytes // REUSED_DIVISOR)
        self.account.record_process_memory(
            max(0, event.private_bytes - reused_bytes),
            sum(copy.booked.host_bytes for copy in loading),
            self._pool.now_s,
        )
        # Memory that a load takes beyond its hint looks like overhead until the load ends, and
        # then the copy may be refused as too big. Until then no other copy is evicted for it.
        if not loading:
            self._pool.evict_excess()
        self.admission.admit()

    def _check_time(self) -> None:
        now_s, idle_s = self._pool.now_s, self.limits.idle_unload_s
        for copy in list(self.admission.in_progress.values()):
            is_late = now_s - copy.since_s > copy.load_timeout_s
            if is_late and copy.state is CopyPhase.LOADING:
                self._time_out(copy)
        if idle_s is not None and now_s - self._swept_s >= idle_s / SWEEPS_PER_IDLE_TIME:
            self._unload_idle(idle_s)
        self.admission.admit(may_drain=True)

    def _time_out(self, copy: copies.Copy) -> None:
        """Refuse the waiters of a load that hangs; keep its bytes booked and don't start it again.

        How much memory its thread has taken, and will take until it ends, is unknown.
        """
        self._pool.move(copy, CopyMove.TIMED_OUT)
        self.admission.finish(copy)
        message = f"the load has not ended within {copy.load_timeout_s:g} s"
        self._record_failure(copy, errors.LoadFailed(message))

    def _unload_idle(self, idle_s: float) -> None:
        self._swept_s = self._pool.now_s
        for copy in list(self.copies.values()):
            is_idle = copy.is_evictable and self._pool.now_s - copy.last_used_s >= idle_s
            # The source of what a replaced model was may be gone, so it could not come back.
            if is_idle and not any(map(version_choice.is_previous, copy.names)):
                self._pool.evict(copy, f"no request came for {idle_s:g} s (idle_unload_s)")
