"""Who comes into memory next: the queue of copies that are wanted, and the loads that are under way."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from meshserve.core.memory import copies, memory_pool, waiters
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import CopyMove
from meshserve.core.values import model

OVERTAKERS_MAX = 8
"""How many loads behind those that wait for leases to end are looked at: bounds the work of one event."""


@dataclass(slots=True)
class _Claims:
    """What those ahead in the queue will take: starts, room that is there or coming, and bytes that copies in use will give."""

    starts: int = 0
    soon: model.Footprint = copies.NOTHING
    draining: model.Footprint = copies.NOTHING


class Admission:
    """The way in. At most `loads_parallel` copies are on it at a time, in the order of arrival.

    Only what waits for leases to end holds nobody up, until it loses its patience: then copies in use are drained for it.
    """

    def __init__(
        self, pool: memory_pool.MemoryPool, waiting: waiters.Waiters, limits: copies.WorkerLimits
    ) -> None:
        self.queue: dict[str, copies.Copy] = {}
        self.in_progress: dict[str, copies.Copy] = {}
        self._pool = pool
        self._account = pool.account
        self._waiters = waiting
        self._limits = limits

    def enqueue(self, copy: copies.Copy) -> None:
        """Queue the copy."""
        self._pool.hold(copy)
        self._pool.move(copy, CopyMove.REQUESTED)
        self.queue[copy.key] = copy

    def cancel(self, copy: copies.Copy) -> None:
        """Nobody waits for it any more: out of the queue."""
        del self.queue[copy.key]
        self._pool.move(
            copy, CopyMove.ONLOAD_GIVEN_UP if copy.is_queued_for_onload else CopyMove.GIVEN_UP
        )
        self._pool.update(copy)

    def finish(self, copy: copies.Copy) -> None:
        """The copy is on its way no longer, however that ended."""
        self.in_progress.pop(copy.key, None)

    def admit(self, *, may_drain: bool = False) -> None:
        """Start what can start, and order out who is in the way of what could start then.

        `may_drain`: now is the time to look for copies in use that must make way, which may take a look at every copy.
        """
        claims = _Claims()
        for copy in list(
            itertools.islice(self.queue.values(), self._limits.loads_parallel + OVERTAKERS_MAX)
        ):
            if len(
                self.in_progress
            ) + claims.starts >= self._limits.loads_parallel or not self._consider(
                copy, claims, may_drain
            ):
                return

    def _consider(self, copy: copies.Copy, claims: _Claims, may_drain: bool) -> bool:
        """Do what can be done for it; whether those behind it may be looked at."""
        is_impatient = self._pool.now_s - copy.since_s > self._limits.patience_s
        if self._refuse_if_never(copy, is_impatient):
            return True
        need, left = copy.admission_need, self._account.free_soon.minus(claims.soon)
        if need.fits_in(left) and need.fits_in(self._account.free):
            self._start(copy)
            return True
        promise = self._pool.make_room(need, left)
        if promise is not memory_pool.Promise.NONE:
            claims.starts += 1
            claims.soon = claims.soon.plus(need)
        elif is_impatient:
            self._drain(need, left, claims, may_drain)
        return promise is not memory_pool.Promise.POSTPONED

    def _refuse_if_never(self, copy: copies.Copy, is_impatient: bool) -> bool:
        """Turn away whoever waits for what can never fit; in the end it is held against what the process itself takes now."""
        overhead_bytes = (
            self._account.overhead_bytes if is_impatient else self._account.overhead_min_bytes
        )
        too_big = self._pool.too_big(copy, overhead_bytes)
        if too_big is None:
            self._spare_extra(copy, overhead_bytes)
            return False
        self._waiters.refuse(self._waiters.take(copy), too_big)
        self.cancel(copy)
        return True

    def _spare_extra(self, copy: copies.Copy, overhead_bytes: int) -> None:
        """A copy that fits, but not with what its load takes beside it, is loaded all the same."""
        if not copy.admission_need.fits_in(self._account.free_at_most(copy, overhead_bytes)):
            copy.load_extra_bytes = 0

    def _drain(
        self, need: model.Footprint, left: model.Footprint, claims: _Claims, may_drain: bool
    ) -> None:
        """Keep for it what copies in use will give and what it takes beside that; they stay in use until then, so it holds no start up."""
        later = left.plus(self._coming(claims))
        if not need.fits_in(later) and not (may_drain and self._pool.drain_in_use(need, later)):
            return
        given = copies.smaller(need, self._coming(claims))
        claims.draining = claims.draining.plus(given)
        claims.soon = claims.soon.plus(need.minus(given))

    def _coming(self, claims: _Claims) -> model.Footprint:
        """What copies in use will give to those who have not claimed it."""
        return self._account.draining.minus(claims.draining)

    def _start(self, copy: copies.Copy) -> None:
        """There is room: bring it in."""
        is_queued_for_onload, takes = (
            copy.is_queued_for_onload,
            copy.booked.plus(copy.admission_need),
        )
        del self.queue[copy.key]
        self.in_progress[copy.key] = copy
        self._pool.move(
            copy, CopyMove.ONLOAD_ORDERED if is_queued_for_onload else CopyMove.ADMITTED
        )
        self._account.book(copy, takes)
        self._pool.order(ev.OnloadCopy(copy.key) if is_queued_for_onload else ev.LoadCopy(copy.key))
