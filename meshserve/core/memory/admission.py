"""The queue of copies that wait for memory, and the loads that are in progress."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from meshserve.core.memory import copies, memory_pool, waiters
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import CopyMove
from meshserve.core.values import model

# Nearly every event looks at the queue, so a long queue must not make all events slow.
OVERTAKERS_MAX = 8
"""How many queued copies one event considers beyond the `loads_parallel` first ones."""


@dataclass(slots=True)
class _Claims:
    """The claims of the copies ahead in the queue.

    `starts` counts their loads, `bytes_soon` is the memory, free now or soon, that they will fill,
    and `draining_bytes` the memory of draining copies that is meant for them.
    """

    starts: int = 0
    bytes_soon: model.Footprint = model.NO_BYTES
    draining_bytes: model.Footprint = model.NO_BYTES


class Admission:
    """Admits copies in order of arrival, at most `loads_parallel` at a time.

    A copy that waits for evictions leaves to those behind it all memory but its own bytes. A copy
    that waits for leases to end may be overtaken for `patience_s`; then copies in use are drained
    for it. A load starts once its bytes are free, never before.
    """

    def __init__(
        self,
        pool: memory_pool.MemoryPool,
        waiting: waiters.Waiters,
        limits: copies.WorkerLimits,
    ) -> None:
        # In the order of arrival, which a dict keeps.
        self.queue: dict[str, copies.Copy] = {}
        self.in_progress: dict[str, copies.Copy] = {}
        self._pool = pool
        self._account = pool.account
        self._waiters = waiting
        self._limits = limits

    def enqueue(self, copy: copies.Copy) -> None:
        """Queue the copy behind all others."""
        # A copy that waits to return to the GPU must not be evicted meanwhile.
        self._pool.hold(copy)
        self._pool.move(copy, CopyMove.REQUESTED)
        self.queue[copy.key] = copy

    def cancel(self, copy: copies.Copy) -> None:
        """Take a copy without waiters out of the queue."""
        del self.queue[copy.key]
        # Asked before the move, which ends the phase that the answer depends on.
        is_offloaded = copy.is_queued_for_onload
        self._pool.move(copy, CopyMove.ONLOAD_GIVEN_UP if is_offloaded else CopyMove.GIVEN_UP)
        self._pool.update(copy)

    def finish(self, copy: copies.Copy) -> None:
        """Note that the copy's load or onload has ended, well or badly."""
        # A load that timed out has left already, and a copy on its way off the GPU was never here.
        self.in_progress.pop(copy.key, None)

    def admit(self, *, may_drain: bool = False) -> None:
        """Start the loads that have their memory, and order evictions for the next ones.

        With `may_drain`, copies in use are considered for impatient loads. That may look at every
        copy, so it happens with the timer, not with each event.
        """
        claims = _Claims()
        # A list, because a copy that starts or is refused leaves the queue.
        ahead = itertools.islice(self.queue.values(), self._limits.loads_parallel + OVERTAKERS_MAX)
        for copy in list(ahead):
            if len(self.in_progress) + claims.starts >= self._limits.loads_parallel:
                return
            if not self._consider(copy, claims, may_drain):
                return

    def _consider(self, copy: copies.Copy, claims: _Claims, may_drain: bool) -> bool:
        """Start, make room for, or refuse the copy; return whether to consider the next one."""
        is_impatient = self._pool.now_s - copy.since_s > self._limits.patience_s
        if self._refuse_too_big(copy, is_impatient):
            return True
        need, free = copy.admission_need, self._account.free_soon.minus(claims.bytes_soon)
        # Free now as well, because what is still being freed can't be filled yet.
        if need.fits_in(free) and need.fits_in(self._account.free):
            self._start(copy)
            return True
        promise = self._pool.make_room(copy, need, free)
        if promise is not memory_pool.Promise.NONE:
            # Evictions are ordered for this copy, so it will start: it counts as a parallel load.
            claims.starts += 1
            claims.bytes_soon = claims.bytes_soon.plus(need)
        elif is_impatient:
            self._drain_for(copy, free, claims, may_drain)
        # Evictions for copies behind it would take the host memory that its offloads wait for.
        return promise is not memory_pool.Promise.POSTPONED

    def _refuse_too_big(self, copy: copies.Copy, is_impatient: bool) -> bool:
        """Refuse the waiters of a copy that can never fit; return whether it was refused.

        At first the smallest overhead ever seen counts, because the process may give memory back.
        A copy that has waited longer than `patience_s` is checked against that of the last seconds:
        memory that requests take for a moment is no reason against a model.
        """
        account = self._account
        overhead_bytes = (
            account.overhead_recent_bytes if is_impatient else account.overhead_min_bytes
        )
        too_big = self._pool.too_big_error(copy, overhead_bytes)
        if too_big is not None:
            self._pool.note_too_big(copy, too_big.message)
            self._waiters.refuse(self._waiters.take(copy), too_big)
            self.cancel(copy)
            return True
        # The copy fits, but not with the extra bytes of its load. Those are only an estimate, so
        # the load is tried without them.
        if not copy.admission_need.fits_in(account.free_at_most(copy, overhead_bytes)):
            copy.load_extra_bytes = 0
        return False

    def _drain_for(
        self, copy: copies.Copy, free: model.Footprint, claims: _Claims, may_drain: bool
    ) -> None:
        """Claim for an impatient load what copies in use will give, and drain more if needed.

        No start is claimed: until the last lease ends, loads that need no draining may overtake.
        """
        need = copy.admission_need
        unclaimed = self._account.draining.minus(claims.draining_bytes)
        free_later = free.plus(unclaimed)
        if not need.fits_in(free_later):
            if not (may_drain and self._pool.drain_for(copy, need, free_later)):
                return
            unclaimed = self._account.draining.minus(claims.draining_bytes)
        given = need.limited_to(unclaimed)
        claims.draining_bytes = claims.draining_bytes.plus(given)
        claims.bytes_soon = claims.bytes_soon.plus(need.minus(given))

    def _start(self, copy: copies.Copy) -> None:
        """Book the copy's bytes and order its load, or its move back to the GPU."""
        # Both are asked before the move, which ends the phase that they depend on.
        is_offloaded, takes = copy.is_queued_for_onload, copy.booked.plus(copy.admission_need)
        del self.queue[copy.key]
        self.in_progress[copy.key] = copy
        self._pool.move(copy, CopyMove.ONLOAD_ORDERED if is_offloaded else CopyMove.ADMITTED)
        self._account.book(copy, takes)
        self._pool.order(ev.OnloadCopy(copy.key) if is_offloaded else ev.LoadCopy(copy.key))
