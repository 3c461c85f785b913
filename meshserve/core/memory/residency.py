"""One worker's memory: who is loaded, who waits, who leaves. Events in, commands out; it never does anything itself.

Promises, in any order of events (`check` states them): copies that stay never take more than the budget, a copy in use is never freed,
every request is answered exactly once, one load serves however many wait, and no load is forgotten.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from meshserve import errors
from meshserve.core.memory import admission, copies, eviction, invariants, memory_pool, waiters
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import WAITABLE, CopyMove, CopyPhase
from meshserve.core.values import model

SWEEPS_PER_IDLE_TIME = 16
"""How exactly `idle_unload_s` is kept: looking at every copy takes time."""

REUSED_PART = 16
"""What the allocator holds free counts as room, for the next copy lies in it; but no more than this part of the budget: it may not fit.

Counted as taken it was made up for by evictions, of which each left more of it behind, until a worker held nothing any more.
"""


class Residency:
    """The decisions of one worker. All times are in seconds of any one steady clock.

    `changed` collects the models of which something else could be told than before; whoever tells it empties it.
    """

    def __init__(self, limits: copies.WorkerLimits, policy: eviction.Policy = eviction.lru) -> None:
        self.limits = limits
        self.bindings: dict[model.ModelId, copies.Binding] = {}
        self.copies: dict[str, copies.Copy] = {}
        self._out: list[ev.Command] = []
        self._waiters = waiters.Waiters(self._out)
        self._pool = memory_pool.MemoryPool(limits, policy, self.copies, self._out)
        self._admission = admission.Admission(self._pool, self._waiters, limits)
        self.counts = self._pool.counts
        self.account = self._pool.account
        self.changed = self._pool.changed
        self._pinned: set[model.ModelId] = set()
        self._attempts = itertools.count(1)
        self._swept_s = 0.0
        self._steps: dict[type, Callable[[Any], None]] = {
            ev.LeaseRequested: self._asked,
            ev.RequesterLeft: self._left,
            ev.LeaseReleased: self._released,
            ev.ArtifactFetched: self._fetched,
            ev.FetchFailed: self._fetch_failed,
            ev.CopyLoaded: self._loaded,
            ev.CopyLoadFailed: self._load_ended,
            ev.CopyFreed: self._freed,
            ev.LoadOverheadKnown: self._extra_known,
            ev.CopyOffloaded: self._parked,
            ev.CopyOnloaded: self._unparked,
            ev.DeviceMoveFailed: self._move_failed,
            ev.ModelForgotten: self._forgotten,
            ev.PinSet: self._pin_changed,
            ev.UnloadRequested: self._unload_wanted,
            ev.MemoryMeasured: self._memory_seen,
            ev.TimerFired: self._ticked,
        }

    def handle(self, event: ev.Event, now_s: float) -> list[ev.Command]:
        """Take one event in and say what is to be done, in that order."""
        self._pool.now_s = now_s
        self._steps[type(event)](event)
        commands = self._out.copy()
        self._out.clear()
        return commands

    def find_ready(self, id_: model.ModelId) -> str | None:
        """The key of the model's copy if it is ready to run."""
        binding = self.bindings.get(id_)
        if (
            binding is None
            or binding.key is None
            or self.copies[binding.key].state is not CopyPhase.READY
        ):
            return None
        return binding.key

    def lease(self, id_: model.ModelId, now_s: float) -> str | None:
        """The hot path of Asked: a lease at once if the copy is ready, else None and nothing changed."""
        key = self.find_ready(id_)
        if key is not None:
            self.counts.hits += 1
            self._pool.acquire(self.copies[key], now_s)
        return key

    def record_use(self, key: str, now_s: float) -> None:
        """A lease on a ready copy that ended before the next event: it counts as any other, and changes nothing for whoever waits."""
        self.counts.hits += 1
        self._pool.use(self.copies[key], now_s)

    @property
    def is_short(self) -> bool:
        """Whether not even all idle copies would make the room that is needed, or somebody has waited long for some."""
        waiting = next(iter(self._admission.queue.values()), None)
        is_late = (
            waiting is not None and self._pool.now_s - waiting.since_s > self.limits.patience_s / 2
        )
        return is_late or not copies.NOTHING.fits_in(
            self.account.free_soon.plus(self.account.evictable)
        )

    def check(self) -> None:
        """Assert every promise about the state as it is now."""
        assert not self._out, "a command was not handed out"
        invariants.check_copies(self.copies, self.bindings)
        invariants.check_bytes(self._pool, self.copies)
        invariants.check_admission(self._admission, self._pool, self.copies, self.limits)
        invariants.check_waiters(self._waiters, (*self.copies.values(), *self.bindings.values()))

    # Requests

    def _asked(self, event: ev.LeaseRequested) -> None:
        key = self.lease(event.id, self._pool.now_s)
        if key is not None:
            self._out.append(ev.GrantLease(event.ticket, key))
            return
        self.counts.misses += 1
        if len(self._waiters) >= self.limits.waiters_max:
            self._refuse(
                event.ticket,
                errors.Overloaded(
                    f"{len(self._waiters)} requests wait for models to load", retry_after_s=1.0
                ),
            )
            return
        binding = self.bindings.setdefault(event.id, copies.Binding(event.id))
        if binding.key is None:
            self._ask_binding(binding, event.ticket)
        else:
            self._ask_copy(self.copies[binding.key], event.ticket, event.id)
            self._admission.admit()

    def _ask_binding(self, binding: copies.Binding, ticket: ev.Ticket) -> None:
        if (
            binding.failure
            and not binding.is_fetching
            and self._pool.now_s < binding.failure.retry_at_s
        ):
            self._refuse(ticket, binding.failure.refusal(self._pool.now_s))
            return
        self._waiters.wait(ticket, binding.id, binding)
        if not binding.is_fetching:
            self._fetch(binding)

    def _ask_copy(self, copy: copies.Copy, ticket: ev.Ticket, id_: model.ModelId) -> None:
        refusal = self._refusal(copy)
        if refusal is not None:
            self._refuse(ticket, refusal)
            return
        if copy.state is CopyPhase.READY:
            self._grant(copy, ticket)
            return
        self._waiters.wait(ticket, id_, copy)
        if copy.state not in WAITABLE:
            self._admission.enqueue(copy)

    def _refusal(self, copy: copies.Copy) -> errors.MeshError | None:
        """Why nobody may wait for the copy now, if so."""
        failure, state = copy.failure, copy.state
        if failure and (
            state is CopyPhase.STUCK
            or (state is CopyPhase.FAILED and self._pool.now_s < failure.retry_at_s)
        ):
            return failure.refusal(self._pool.now_s)
        if state in {CopyPhase.ABSENT, CopyPhase.FAILED, CopyPhase.OFFLOADED}:
            return self._pool.too_big(copy, self.account.overhead_min_bytes)
        return None

    def _left(self, event: ev.RequesterLeft) -> None:
        record = self._waiters.leave(event.ticket)
        if isinstance(record, copies.Copy):
            self._reconsider(record)
            self._admission.admit()

    def _reconsider(self, copy: copies.Copy) -> None:
        """Somebody wants it no longer."""
        if copy.state is CopyPhase.QUEUED and not copy.waiters:
            self._admission.cancel(copy)
        else:
            self._pool.update(copy)

    def _released(self, event: ev.LeaseReleased) -> None:
        if self._pool.release(self.copies[event.key]) and self._admission.queue:
            self._admission.admit()

    def _grant(self, copy: copies.Copy, ticket: ev.Ticket) -> None:
        self._pool.acquire(copy, self._pool.now_s)
        self._out.append(ev.GrantLease(ticket, copy.key))

    def _refuse(self, ticket: ev.Ticket, error: errors.MeshError) -> None:
        self._out.append(ev.RefuseLease(ticket, error))

    def _refuse_all(self, record: waiters.Record, error: errors.MeshError) -> None:
        self._waiters.refuse(self._waiters.take(record), error)

    # Artifacts

    def _fetch(self, binding: copies.Binding) -> None:
        binding.attempt = next(self._attempts)
        binding.is_fetching = True
        self.changed.add(binding.id)
        self._out.append(ev.FetchArtifact(binding.id, binding.attempt))

    def _fetching(self, event: ev.ArtifactFetched | ev.FetchFailed) -> copies.Binding | None:
        """The binding that waits for this very answer; its fetch has ended."""
        binding = self.bindings.get(event.id)
        if binding is None or not binding.is_fetching or binding.attempt != event.attempt:
            return None
        binding.is_fetching = False
        self.changed.add(binding.id)
        return binding

    def _fetched(self, event: ev.ArtifactFetched) -> None:
        binding = self._fetching(event)
        if binding is None:
            return
        binding.failure, binding.key = None, event.key
        copy = self.copies.setdefault(event.key, copies.Copy(event.key, event.need))
        copy.apply_artifact(event)
        copy.names.add(event.id)
        if event.id in self._pinned:
            self._pool.pin(copy, event.id)
        for ticket in self._waiters.take(binding):
            self._ask_copy(copy, ticket, event.id)
        self._admission.admit()

    def _fetch_failed(self, event: ev.FetchFailed) -> None:
        binding = self._fetching(event)
        if binding is None:
            return
        self.counts.load_failures += 1
        binding.failure = copies.add_failure(
            binding.failure, event.error, self._pool.now_s, self.limits
        )
        self._refuse_all(binding, binding.failure.refusal(self._pool.now_s))

    def _forgotten(self, event: ev.ModelForgotten) -> None:
        if not event.is_replaced:
            self._pinned.discard(event.id)
        binding = self.bindings.pop(event.id, None)
        if binding is None:
            return
        self.changed.add(event.id)
        record = self.copies[binding.key] if binding.key is not None else binding
        waiting = self._waiters.take(record, event.id)
        if isinstance(record, copies.Copy):
            record.names.discard(event.id)
            self._pool.unpin(record, event.id)
            self._reconsider(record)
        if not event.is_replaced:
            self._waiters.refuse(
                waiting,
                errors.ModelNotFound(f"model {event.id} was removed while requests waited for it"),
            )
        elif waiting:
            self._fetch_anew(event.id, waiting)
        self._admission.admit()

    def _fetch_anew(self, id_: model.ModelId, waiting: list[ev.Ticket]) -> None:
        binding = self.bindings[id_] = copies.Binding(id_)
        for ticket in waiting:
            self._waiters.wait(ticket, id_, binding)
        self._fetch(binding)

    # What comes of commands

    def _loaded(self, event: ev.CopyLoaded) -> None:
        copy = self.copies[event.key]
        self.counts.loads += 1
        self._pool.move(copy, CopyMove.LOADED)
        copy.record_load(event.footprint, event.load_s)
        self.account.book(copy, event.footprint)
        if self._pool.keep_within():
            self._settle_in(copy)
        else:
            self._expel(copy)
        self._end_move(copy)

    def _unparked(self, event: ev.CopyOnloaded) -> None:
        copy = self.copies[event.key]
        self._pool.move(copy, CopyMove.LOADED)
        self.account.book(copy, copy.need)
        self._settle_in(copy)
        self._end_move(copy)

    def _settle_in(self, copy: copies.Copy) -> None:
        """It is ready: whoever waited has it."""
        self._pool.freshen(copy)
        for ticket in self._waiters.take(copy):
            self._grant(copy, ticket)
        self._pool.update(copy)

    def _expel(self, copy: copies.Copy) -> None:
        """It turned out bigger than the room that can be made now: it goes. Who waits, waits for more or hears that it can't be."""
        self._pool.free(copy)
        too_big = self._pool.too_big(copy, self.account.overhead_min_bytes)
        if too_big is not None:
            self._refuse_all(copy, too_big)

    def _end_move(self, copy: copies.Copy) -> None:
        self._admission.finish(copy)
        self._admission.admit()

    def _load_ended(self, event: ev.CopyLoadFailed) -> None:
        copy = self.copies[event.key]
        was_stuck = copy.state is CopyPhase.STUCK
        self._pool.move(copy, CopyMove.LOAD_FAILED)
        self.account.book(copy, copies.NOTHING)
        copy.is_unload_requested = False
        if was_stuck and copy.failure:
            copy.failure.error = event.error
        else:
            self._note_failure(copy, event.error)
        self._pool.update(copy)
        self._end_move(copy)

    def _note_failure(self, copy: copies.Copy, error: errors.MeshError) -> None:
        self.counts.load_failures += 1
        copy.failure = copies.add_failure(copy.failure, error, self._pool.now_s, self.limits)
        self._refuse_all(copy, copy.failure.refusal(self._pool.now_s))

    def _freed(self, event: ev.CopyFreed) -> None:
        copy = self.copies[event.key]
        self._pool.freed(copy)
        self._resume(copy)

    def _extra_known(self, event: ev.LoadOverheadKnown) -> None:
        copy = self.copies.get(event.key)
        if copy is not None:
            copy.set_load_extra(event.load_extra_bytes)
            self._admission.admit()

    def _parked(self, event: ev.CopyOffloaded) -> None:
        copy = self.copies[event.key]
        self._pool.parked(copy)
        self._resume(copy)

    def _resume(self, copy: copies.Copy) -> None:
        """It has left; whoever asked for it meanwhile brings it back, unless there can be no room for it."""
        if copy.waiters:
            self._admission.enqueue(copy)
        else:
            self._pool.update(copy)
        self._admission.admit()

    def _move_failed(self, event: ev.DeviceMoveFailed) -> None:
        copy = self.copies[event.key]
        self._pool.abandon(copy)
        self._end_move(copy)

    # Wishes and time

    def _pin_changed(self, event: ev.PinSet) -> None:
        binding = self.bindings.get(event.id)
        copy = self.copies[binding.key] if binding and binding.key is not None else None
        if event.is_pinned:
            self._pinned.add(event.id)
            if copy is not None:
                self._pool.pin(copy, event.id)
        else:
            self._pinned.discard(event.id)
            if copy is not None:
                self._pool.unpin(copy, event.id)
                self._pool.update(copy)
        self._admission.admit()

    def _unload_wanted(self, event: ev.UnloadRequested) -> None:
        binding = self.bindings.get(event.id)
        copy = self.copies[binding.key] if binding and binding.key is not None else None
        if copy is not None and copy.is_in_memory and not copy.pins:
            copy.is_unload_requested = True
            self._pool.update(copy)

    def _memory_seen(self, event: ev.MemoryMeasured) -> None:
        """What a load takes beyond its hint looks like the process's own until it ends: nobody goes for what may be turned away then."""
        loading = [
            copy for copy in self._admission.in_progress.values() if copy.state is CopyPhase.LOADING
        ]
        reused_bytes = min(event.free_bytes, self.account.budget.host_bytes // REUSED_PART)
        self.account.record_process_memory(
            max(0, event.private_bytes - reused_bytes),
            sum(copy.booked.host_bytes for copy in loading),
        )
        if not loading:
            self._pool.shed()
        self._admission.admit()

    def _ticked(self, _event: ev.TimerFired) -> None:
        for copy in list(self._admission.in_progress.values()):
            if (
                copy.state is CopyPhase.LOADING
                and self._pool.now_s - copy.since_s > copy.load_timeout_s
            ):
                self._time_out(copy)
        idle_s = self.limits.idle_unload_s
        if idle_s is not None and self._pool.now_s - self._swept_s >= idle_s / SWEEPS_PER_IDLE_TIME:
            self._unload_idle(idle_s)
        self._admission.admit(may_drain=True)

    def _time_out(self, copy: copies.Copy) -> None:
        """Its bytes stay booked, for nobody knows what the load still takes; nobody waits for it, and nobody starts it twice."""
        self._pool.move(copy, CopyMove.TIMED_OUT)
        self._admission.finish(copy)
        self._note_failure(
            copy, errors.LoadFailed(f"the load has not ended within {copy.load_timeout_s:g} s")
        )

    def _unload_idle(self, idle_s: float) -> None:
        self._swept_s = self._pool.now_s
        for copy in list(self.copies.values()):
            if copy.is_evictable and self._pool.now_s - copy.last_used_s >= idle_s:
                self._pool.evict(copy)
