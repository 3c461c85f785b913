"""The bytes of one worker: booked, about to be free, evictable, pinned, and overhead."""

from __future__ import annotations

import math

from meshserve.core.memory import copies
from meshserve.core.memory.copy_lifecycle import CopyPhase
from meshserve.core.values import model

RECENT_S = 10.0
"""How long the process may take more than before until that counts as its own need.

Requests with bodies of megabytes, and answers that wait for their clients, leave by themselves.
"""

OFFLOAD_PHASES = frozenset({CopyPhase.OFFLOADED, CopyPhase.OFFLOADING})


class MemoryAccount:
    """Sums over all copies, so that no decision has to look at every copy.

    `booked`: taken by copies or promised to them. `freeing`: the part of `booked` whose eviction
    or offload is ordered and not done. `draining`: bytes of copies that are freed with their last
    lease. `pinned`: bytes that pins keep. `overhead_bytes`: private memory of the process that no
    copy accounts for; `overhead_min_bytes` is its smallest value so far, `overhead_recent_bytes`
    the smallest of the last `RECENT_S` to twice as long.
    """

    def __init__(self, budget: model.Footprint) -> None:
        self.budget = budget
        self.booked = model.NO_BYTES
        self.freeing = model.NO_BYTES
        self.draining = model.NO_BYTES
        self.pinned = model.NO_BYTES
        self.overhead_bytes = 0
        self.overhead_min_bytes = 0
        self._is_process_measured = False
        # The smallest overhead since a moment, and in the `RECENT_S` before that.
        self._since_s = -math.inf
        self._smallest_bytes = self._smallest_before_bytes = 0
        # Two integers instead of a Footprint: both change with each lease, the hot path.
        self._evictable_host_bytes = 0
        self._evictable_gpu_bytes = 0

    def book(
        self, copy: copies.Copy, takes: model.Footprint, freeing: model.Footprint = model.NO_BYTES
    ) -> None:
        """Replace the copy's booking by `takes`, of which `freeing` is about to be freed."""
        assert not copy.is_evictable, (
            f"{copy.key} is evictable; its bytes are fixed until it is held"
        )
        self.booked = self.booked.minus(copy.booked).plus(takes)
        self.freeing = self.freeing.minus(copy.freeing).plus(freeing)
        copy.booked, copy.freeing = takes, freeing
        self.update_pinned(copy)

    def update_pinned(self, copy: copies.Copy) -> None:
        """Count the bytes that the copy's pins keep, after a change of its pins, phase or bytes."""
        pinned = model.NO_BYTES
        if copy.pins and copy.state is not CopyPhase.DRAINING:
            pinned = copy.booked.minus(copy.freeing)
            # A copy on its way back to the GPU gives its host memory back on arrival. An offloaded
            # copy keeps it: without a request nothing moves it back.
            if copy.state not in OFFLOAD_PHASES:
                pinned = pinned.limited_to(copy.need)
        if pinned != copy.pinned:
            self.pinned = self.pinned.minus(copy.pinned).plus(pinned)
            copy.pinned = pinned

    def mark_evictable(self, copy: copies.Copy) -> None:
        """Count the copy's bytes as evictable; they may not change until `mark_held`."""
        if not copy.is_evictable:
            copy.is_evictable = True
            self._evictable_host_bytes += copy.booked.host_bytes
            self._evictable_gpu_bytes += copy.booked.gpu_bytes

    def mark_held(self, copy: copies.Copy) -> None:
        """Count the copy's bytes as evictable no longer."""
        if copy.is_evictable:
            copy.is_evictable = False
            self._evictable_host_bytes -= copy.booked.host_bytes
            self._evictable_gpu_bytes -= copy.booked.gpu_bytes

    def record_process_memory(
        self, private_bytes: int, loading_bytes: int, now_s: float = 0.0
    ) -> None:
        """Subtract the process's private memory that no copy accounts for from the budget.

        `loading_bytes` are booked for loads in progress. How much of that is taken already is
        unknown, so the overhead is known only as a range, and the last value is kept within it.
        """
        # A load has booked its bytes before it takes them, so bookings may exceed what is taken.
        least = max(0, private_bytes - self.booked.host_bytes)
        most = least + loading_bytes
        if self._is_process_measured:
            self.overhead_bytes = min(most, max(least, self.overhead_bytes))
            self.overhead_min_bytes = min(self.overhead_min_bytes, self.overhead_bytes)
        else:
            self.overhead_bytes = self.overhead_min_bytes = most
            self._smallest_bytes = most
            self._is_process_measured = True
        if now_s - self._since_s >= RECENT_S:
            self._since_s, self._smallest_before_bytes = now_s, self._smallest_bytes
            self._smallest_bytes = self.overhead_bytes
        self._smallest_bytes = min(self._smallest_bytes, self.overhead_bytes)

    @property
    def overhead_recent_bytes(self) -> int:
        """The smallest overhead of the last seconds."""
        return min(self._smallest_bytes, self._smallest_before_bytes)

    @property
    def evictable(self) -> model.Footprint:
        """The bytes of all evictable copies."""
        return model.Footprint(self._evictable_host_bytes, self._evictable_gpu_bytes)

    @property
    def free(self) -> model.Footprint:
        """The bytes that are free now; negative while bookings and overhead exceed the budget."""
        budget, booked = self.budget, self.booked
        return model.Footprint(
            budget.host_bytes - booked.host_bytes - self.overhead_bytes,
            budget.gpu_bytes - booked.gpu_bytes,
        )

    @property
    def free_soon(self) -> model.Footprint:
        """The bytes that are free once all ordered evictions and offloads are done."""
        return self.free.plus(self.freeing)

    def free_at_most(self, copy: copies.Copy, overhead_bytes: int) -> model.Footprint:
        """Return the most that can be free for the copy: budget less overhead and other pins."""
        overhead = model.Footprint(overhead_bytes)
        return self.budget.minus(self.pinned).plus(copy.pinned).minus(overhead)
