"""Memory of this process, as the allocator and the kernel count it."""

from __future__ import annotations

import gc
import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from meshserve.core.memory import residency_events as ev
from meshserve.worker.models import allocators

PAGE_BYTES = mmap.PAGESIZE
NOISE_BYTES = 4 << 20
"""Growth of the process beyond the thread's own that is still attributed to other threads."""

COPY_BYTES_MIN = 16 << 10
SHORT_SHARE = 0.9
"""The part of the budget above which the allocator's free bytes are counted."""

TRIM_AFTER_BYTES = 32 << 20


def calm_collector() -> None:
    """Make full garbage collections rare.

    With tens of thousands of models in memory, each full collection delays all requests by tenths
    of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def private_bytes(pid: int | None = None) -> int:
    """Return the resident memory of a process, by default of this one, that no file backs.

    Raises OSError or ValueError if the process has ended.
    """
    # The first fields are pages: total, resident, and resident pages of files (man 5 proc).
    # Not smaps_rollup, for which the kernel walks every page: this is read on each tick.
    statm = Path(f"/proc/{pid or 'self'}/statm").read_text("ascii")
    resident, shared = map(int, statm.split()[1:3])
    return (resident - shared) * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class MemoryMark:
    """Memory in use at one moment: by the calling thread, if that is known, and by all threads."""

    own_bytes: int
    allocated_bytes: int
    private_bytes: int


@dataclass(frozen=True, slots=True)
class ProcessMeter:
    """Measures the memory and the time that work takes in this process.

    `private_bytes` returns the process's memory that no file backs, `now_s` the seconds on the
    event loop's clock.
    """

    allocator: allocators.Allocator = field(default_factory=allocators.current)
    private_bytes: Callable[[], int] = private_bytes
    now_s: Callable[[], float] = time.monotonic

    def mark(self) -> MemoryMark:
        """Return the memory in use now."""
        return MemoryMark(
            self.allocator.own_bytes(), self.allocator.in_use_bytes(), self.private_bytes()
        )

    def grown_bytes(self, since: MemoryMark, freed_bytes: int, *, has_runs: bool = False) -> int:
        """Return the bytes that this thread has taken since the mark, at least COPY_BYTES_MIN.

        Other threads freed `freed_bytes` meanwhile. If the whole process, by its allocator or by
        the kernel, grew by over NOISE_BYTES more, that growth counts, because libraries load in
        threads of their own. Not if models ran meanwhile (`has_runs`): theirs is another model's.
        """
        now = self.mark()
        allocated = now.allocated_bytes - since.allocated_bytes + freed_bytes
        private = now.private_bytes - since.private_bytes + freed_bytes
        own = now.own_bytes - since.own_bytes if self.allocator.counts_by_thread else allocated
        seen = max(allocated, private)
        is_others = has_runs and self.allocator.counts_by_thread
        is_of_library = seen > own + NOISE_BYTES and not is_others
        return max(own, seen if is_of_library else 0, COPY_BYTES_MIN)


OWN = ProcessMeter()
"""Measures by the machine's own counts and clock."""


class MemoryWatch:
    """Measures the memory of this process.

    `mapped_bytes` are weights in mapped files; `freed_bytes` were freed since the last `trim`.
    """

    def __init__(self, budget_bytes: int, meter: ProcessMeter = OWN) -> None:
        self.mapped_bytes = 0
        self.freed_bytes = 0
        self._budget_bytes = budget_bytes
        self._meter = meter

    def measure(self, outside_bytes: int = 0) -> ev.MemoryMeasured:
        """Return the memory that the process takes now, with the files that copies map.

        `outside_bytes` are those of processes that copies have of their own.
        Mapped pages count because models are slow without them. The allocator's free bytes are
        counted only when memory is short, because glibc counts them by walking all free blocks.
        """
        taken_bytes = self._meter.private_bytes() + self.mapped_bytes + outside_bytes
        is_short = taken_bytes > SHORT_SHARE * self._budget_bytes
        free_bytes = self._meter.allocator.free_bytes() if is_short else 0
        return ev.MemoryMeasured(taken_bytes, free_bytes)

    def is_trim_due(self) -> bool:
        """Return whether enough bytes were freed to make `trim` worth its time."""
        return self.freed_bytes >= TRIM_AFTER_BYTES

    def trim(self) -> None:
        """Return free pages to the kernel. This takes milliseconds, so call it in a thread."""
        # First: what the event loop frees during the trim counts for the next one.
        self.freed_bytes = 0
        self._meter.allocator.trim()
