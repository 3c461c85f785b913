"""The memory of one worker: its copies, which of them may be evicted, and how room is made."""

from __future__ import annotations

import contextlib
import enum
import heapq
from collections.abc import Generator

from meshserve import errors
from meshserve.core import state_table
from meshserve.core.memory import (
    copies,
    copy_history,
    copy_lifecycle,
    eviction,
    eviction_queue,
    memory_account,
)
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import CopyMove, CopyPhase
from meshserve.core.values import mesh_events, model

MIB = 2**20
TOO_BIG_PAUSE_S = 60.0


class Promise(enum.Enum):
    """The outcome of `make_room`.

    NONE: evictions can't make enough room, and none is ordered. COMING: all evictions are ordered.
    POSTPONED: room comes in several steps, and no other load may order evictions before the last
    step is planned.
    """

    NONE = "none"
    COMING = "coming"
    POSTPONED = "postponed"


class MemoryPool:
    """All copies of one worker by key, with the bytes they have booked.

    `changed` collects the models whose copies have changed since a reporter last cleared it.
    Commands are appended to `out`.
    """

    def __init__(
        self, limits: copies.WorkerLimits, policy: eviction.Policy, out: list[ev.Command]
    ) -> None:
        self.copies: dict[str, copies.Copy] = {}
        self.account = memory_account.MemoryAccount(limits.budget)
        self.counts = copies.ResidencyCounts()
        self.changed: set[model.ModelId] = set()
        self.history = copy_history.CopyHistory()
        self.now_s = 0.0
        self._policy = policy
        self._out = out
        self._moves = state_table.MoveLog(copy_lifecycle.LIFECYCLE)
        # The highest score of any evicted copy: GDSF's "age", which lets new copies win against
        # those that were used often long ago.
        self._age = 0.0
        self._ready = eviction_queue.EvictionQueue(self._score)
        self._offloaded = eviction_queue.EvictionQueue(self._score)

    def move(self, copy: copies.Copy, move: CopyMove) -> None:
        """Make a move of the copy's lifecycle. Raises IllegalMove if the table has none."""
        copy.state = self._moves.after(copy.key, copy.state, move)
        copy.since_s = self.now_s
        self.account.update_pinned(copy)
        self.changed |= copy.names

    def order(self, command: ev.Command) -> None:
        """Append a command."""
        self._out.append(command)

    # Use

    def acquire(self, copy: copies.Copy, now_s: float) -> None:
        """Add a lease."""
        if copy.is_evictable:
            self.account.mark_held(copy)
        _count_use(copy, now_s)
        copy.leases += 1

    def release(self, copy: copies.Copy) -> bool:
        """End a lease and return whether it was the last. A draining copy is then freed."""
        assert copy.leases > 0, f"{copy.key} was released more often than acquired"
        copy.leases -= 1
        if copy.leases:
            return False
        # The end of a use counts, not its begin: a copy is in use during all of a long run.
        copy.last_used_s = self.now_s
        self.changed |= copy.names
        self.rate(copy)
        if copy.state is CopyPhase.DRAINING:
            self.free(copy)
        elif not copy.pins:
            self.account.mark_evictable(copy)
        return True

    def record_use(self, copy: copies.Copy, now_s: float, uses: int = 1) -> None:
        """Count uses that began and ended between two events, the last one at `now_s`."""
        self.now_s = now_s
        _count_use(copy, now_s, uses)
        # A leased copy is rated when its last lease ends.
        if not copy.leases:
            self.changed |= copy.names
            self.rate(copy)

    def rate(self, copy: copies.Copy) -> None:
        """Raise the copy's score to that of a use now. Scores never fall (see EvictionQueue)."""
        copy.score = max(copy.score, self._policy(copy, self.now_s, self._age))

    def record_arrival(self, copy: copies.Copy) -> None:
        """Rate a copy that has just come into memory like one that has just been used."""
        copy.uses = eviction.decayed(copy.uses, self.now_s - copy.last_used_s)
        copy.last_used_s = self.now_s
        self.rate(copy)
        is_loaded = copy.loaded_s == self.now_s
        came = "" if is_loaded else "back on the GPU; "
        reason = f"{came}{len(copy.waiters)} waited for it"
        load_s = copy.load_s if is_loaded else 0.0
        if is_loaded:
            self.history.count_load(copy)
        self.history.note("loaded", copy.names, self.now_s, reason, load_s)

    def record_failure(self, record: copies.Copy | copies.Binding) -> None:
        """Note in the history that a fetch or load of the record has just failed."""
        failure = record.failure
        assert failure is not None, "it has not failed"
        ids = record.names if isinstance(record, copies.Copy) else {record.id}
        wait_s = failure.retry.retry_at_s - self.now_s
        reason = f"{failure.error.message} (failure {failure.retry.failures} in a row; the next "
        self.history.note("load failed", ids, self.now_s, f"{reason}try is in {wait_s:.0f} s)")

    def _score(self, key: str) -> float:
        copy = self.copies[key]
        # A leased copy is in use now. Its score is raised here, not with each lease.
        if copy.leases:
            self.rate(copy)
        return copy.score

    def is_ranked(self, copy: copies.Copy) -> bool:
        """Return whether the copy is in an eviction queue; leased copies stay in theirs."""
        return copy.key in self._ready or copy.key in self._offloaded

    # Staying and leaving

    def update(self, copy: copies.Copy) -> None:
        """Drain a copy that is to be unloaded or serves no model, else make it evictable.

        A copy without bytes and without a model is forgotten.
        """
        state = copy.state
        if state in copy_lifecycle.IDLE:
            if copy.is_unload_requested or not copy.names:
                if copy.failure is None:
                    self._note_departure("unloaded", copy, "by request")
                self._drain(copy)
            elif not copy.pins:
                queue = self._ready if state is CopyPhase.READY else self._offloaded
                queue.add(copy.key)
                if not copy.leases:
                    self.account.mark_evictable(copy)
        elif not copy.names and state in {CopyPhase.ABSENT, CopyPhase.FAILED}:
            del self.copies[copy.key]

    def hold(self, copy: copies.Copy) -> None:
        """Keep the copy in memory until the next `update`."""
        self.account.mark_held(copy)
        self._ready.discard(copy.key)
        self._offloaded.discard(copy.key)

    def pin(self, copy: copies.Copy, id_: model.ModelId) -> None:
        """Keep the copy until the model unpins it; an unload that was requested is dropped."""
        copy.pins |= {id_}
        self.changed.add(id_)
        copy.is_unload_requested = False
        self.hold(copy)
        self.account.update_pinned(copy)

    def unpin(self, copy: copies.Copy, id_: model.ModelId) -> None:
        """Drop the model's pin of the copy, if any. The caller calls `update` next."""
        copy.pins -= {id_}
        self.changed.add(id_)
        self.account.update_pinned(copy)

    def _drain(self, copy: copies.Copy) -> None:
        """Free the copy with its last lease; new requests wait for it to come back."""
        if not copy.leases:
            self.free(copy)
            return
        self.hold(copy)
        self.move(copy, CopyMove.DRAIN_ORDERED)
        self.account.draining = self.account.draining.plus(copy.booked)

    def free(self, copy: copies.Copy) -> None:
        """Order the eviction of a copy without leases."""
        assert not copy.leases, f"{copy.key} is in use"
        self.hold(copy)
        if copy.state is CopyPhase.DRAINING:
            self.account.draining = self.account.draining.minus(copy.booked)
        self.move(copy, CopyMove.EVICTION_ORDERED)
        self._order_free(copy)

    def abandon(self, copy: copies.Copy) -> None:
        """Order the eviction of a copy whose move between the devices failed."""
        self.move(copy, CopyMove.MOVE_FAILED)
        self._order_free(copy)

    def _order_free(self, copy: copies.Copy) -> None:
        # This meets the request, which must not unload the copy again once it has come back.
        copy.is_unload_requested = False
        self.account.book(copy, copy.booked, freeing=copy.booked)
        self.order(ev.FreeCopy(copy.key))

    def record_freed(self, copy: copies.Copy) -> None:
        """Give the copy's bytes back: its eviction has ended."""
        self.move(copy, CopyMove.FREED)
        # Scores never fall, so the old one would be kept if the copy is bigger after its next load.
        copy.score = 0.0
        self.account.book(copy, model.NO_BYTES)

    def _offload(self, copy: copies.Copy) -> None:
        """Order the copy to host memory, where its bytes are booked at once."""
        self.hold(copy)
        self.move(copy, CopyMove.OFFLOAD_ORDERED)
        # Booked on both devices until the move ends: host memory fills before GPU memory is free.
        takes = model.Footprint(copy.offloaded_need.host_bytes, copy.booked.gpu_bytes)
        self.account.book(copy, takes, freeing=model.Footprint(0, copy.booked.gpu_bytes))
        self.order(ev.OffloadCopy(copy.key))

    def record_offloaded(self, copy: copies.Copy) -> None:
        """Give the copy's GPU bytes back: its move to host memory has ended."""
        self.move(copy, CopyMove.OFFLOADED)
        self.account.book(copy, copy.offloaded_need)

    # Making room

    def make_room(
        self, comer: copies.Copy, need: model.Footprint, free: model.Footprint
    ) -> Promise:
        """Evict or offload as many copies as `need` takes beyond `free`; none if all are too few.

        `comer` is the copy that needs the room, and `free` the memory that is free soon and not
        claimed by loads ahead.
        """
        buffer_bytes = free.host_bytes - need.host_bytes
        # Closed here, because only then has the queue got back what the plan has read.
        with contextlib.closing(self._candidates(self._offloaded)) as offloaded:
            # A load that lacks host memory itself takes the offloaded copies as victims.
            buffer = eviction.HostBuffer(
                min(buffer_bytes, self.account.free.host_bytes),
                buffer_bytes,
                offloaded if buffer_bytes >= 0 else (),
            )
            plan = self._plan(need, free, buffer)
        # Only now, because the queues must not change while they are read.
        return Promise.NONE if plan is None else self._perform(plan, comer)

    def keep_within_budget(self) -> bool:
        """Evict copies if bookings and overhead exceed the budget and evictions can mend that.

        Return whether the bookings of the copies that stay are within the budget.
        """
        if model.NO_BYTES.fits_in(self.account.free_soon.plus(self.account.evictable)):
            self.evict_excess()
        return self.account.booked.minus(self.account.freeing).fits_in(self.account.budget)

    def evict_excess(self) -> None:
        """Evict copies until bookings and overhead are within the budget, or none is evictable."""
        free = self.account.free_soon
        if model.NO_BYTES.fits_in(free):
            return
        reachable = free.plus(self.account.evictable)
        # What leased and pinned copies hold can't be freed now, so the need stops at what can.
        need = reachable.limited_to(model.NO_BYTES)
        buffer_bytes = min(free.host_bytes - need.host_bytes, self.account.free.host_bytes)
        plan = self._plan(need, free, eviction.HostBuffer(buffer_bytes, buffer_bytes))
        assert plan is not None, "the need was limited to what evictions can reach"
        self._perform(plan, None)

    def _plan(
        self, need: model.Footprint, free: model.Footprint, buffer: eviction.HostBuffer
    ) -> eviction.EvictionPlan | None:
        if not need.fits_in(free.plus(self.account.evictable)):
            return None
        # Offloaded copies hold host memory alone: they are no help where GPU memory is missing.
        lacks_host_memory = need.host_bytes > free.host_bytes
        queues = (self._ready, self._offloaded) if lacks_host_memory else (self._ready,)
        with contextlib.closing(self._candidates(*queues)) as candidates:
            plan = eviction.plan(candidates, free, need, buffer)
        # The sum above says in constant time that a plan exists.
        assert plan is not None, "all evictable copies would be enough, and yet no plan was found"
        return plan

    def _perform(self, plan: eviction.EvictionPlan, comer: copies.Copy | None) -> Promise:
        # Nearly every plan is empty, and then no words are needed.
        reason = self._reason(comer) if plan.free or plan.offload else ""
        for key in plan.free:
            self.evict(self.copies[key], reason)
            self.counts.note_eviction(key, self.now_s)
        for key in plan.offload:
            self._raise_age(self.copies[key])
            self._note_departure("parked", self.copies[key], reason)
            self._offload(self.copies[key])
        return Promise.POSTPONED if plan.is_postponed else Promise.COMING

    def _reason(self, comer: copies.Copy | None) -> str:
        if comer is not None:
            return f"to make room for {copy_history.in_words(comer)}"
        account = self.account
        return (
            f"the process takes {_in_words(model.Footprint(account.overhead_bytes))} beside its "
            f"models, of a budget of {_in_words(account.budget)}"
        )

    def drain_for(self, comer: copies.Copy, need: model.Footprint, free: model.Footprint) -> bool:
        """Drain as many copies, leased ones too, as `need` of `comer` takes beyond `free`.

        Return False, and drain none, if all of them are too few.
        """
        with contextlib.closing(
            self._candidates(self._ready, self._offloaded, with_leased=True)
        ) as candidates:
            # Without a host buffer: a copy that drains is freed with its last lease.
            plan = eviction.plan(candidates, free, need)
        if plan is not None:
            self._perform(plan, comer)
        return plan is not None

    def _candidates(
        self, *queues: eviction_queue.EvictionQueue, with_leased: bool = False
    ) -> Generator[eviction.Candidate, None, None]:
        """Yield the copies of the queues, lowest score first; close it before changing a queue."""
        with contextlib.ExitStack() as stack:
            in_order = [
                stack.enter_context(contextlib.closing(queue.in_order()))
                for queue in queues
                if len(queue)
            ]
            # Merged lazily, so that a plan looks at no more copies than it needs.
            for score, key in heapq.merge(*in_order):
                copy = self.copies[key]
                # Leased copies stay in their queue, since taking them out would cost each request.
                if with_leased or not copy.leases:
                    can_offload = copy.can_offload and copy.state is CopyPhase.READY
                    yield eviction.Candidate(key, copy.booked, can_offload, score)

    def evict(self, copy: copies.Copy, reason: str) -> None:
        """Free the copy, with its last lease, to make room or because it was idle for long."""
        self._raise_age(copy)
        self.counts.evictions += 1
        self.history.count_eviction(copy)
        self._note_departure("evicted", copy, reason)
        self._drain(copy)

    def _note_departure(self, kind: mesh_events.CopyKind, copy: copies.Copy, reason: str) -> None:
        copy.departure = copies.Departure(self.now_s, kind, reason)
        self.history.note(kind, copy.names, self.now_s, reason)

    def _raise_age(self, copy: copies.Copy) -> None:
        self._age = max(self._age, copy.score)

    def note_too_big(self, copy: copies.Copy, reason: str = "") -> None:
        """Note that the copy is too big for the memory that others leave to it."""
        last = copy.departure
        # Each request for such a model is refused, and one line a minute is enough.
        if last and last.kind == "too big" and self.now_s - last.at_s < TOO_BIG_PAUSE_S:
            return
        reason = reason or f"it takes {_in_words(copy.need)}, and others can't leave that much now"
        self._note_departure("too big", copy, reason)

    def too_big_error(self, copy: copies.Copy, overhead_bytes: int) -> errors.ModelTooBig | None:
        """Return the error if the copy can never fit while the overhead is `overhead_bytes`."""
        most = self.account.free_at_most(copy, overhead_bytes)
        if copy.need.fits_in(most):
            return None
        return errors.ModelTooBig(
            f"the model needs {_in_words(copy.need)}; this worker could free at most "
            f"{_in_words(_not_negative(most))} of its budget: its process itself takes "
            f"{_in_words(model.Footprint(overhead_bytes))}"
        )


def _count_use(copy: copies.Copy, now_s: float, uses: int = 1) -> None:
    copy.uses = eviction.decayed(copy.uses, now_s - copy.last_used_s) + uses
    copy.last_used_s = now_s


def _not_negative(footprint: model.Footprint) -> model.Footprint:
    return model.Footprint(max(0, footprint.host_bytes), max(0, footprint.gpu_bytes))


def _in_words(footprint: model.Footprint) -> str:
    gpu = f" and {footprint.gpu_bytes / MIB:.1f} MiB of GPU memory" if footprint.gpu_bytes else ""
    return f"{footprint.host_bytes / MIB:.1f} MiB of memory{gpu}"
