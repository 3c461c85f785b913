"""Memory of this process, as the allocator and the kernel count it."""

from __future__ import annotations

import gc
import mmap
from dataclasses import dataclass
from pathlib import Path

from meshserve.core.memory import residency_events as ev
from meshserve.worker.models import allocators

PAGE_BYTES = mmap.PAGESIZE
NOISE_BYTES = 4 << 20
"""Growth of the whole process that is taken for other threads' doing."""

COPY_BYTES_MIN = 16 << 10
SHORT_SHARE = 0.9
"""Part of the budget above which free bytes are worth counting."""

TRIM_AFTER_BYTES = 32 << 20


def calm_collector() -> None:
    """Make full garbage collections rare.

    With tens of thousands of models in memory, each holds all requests up for tenths of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def private_bytes() -> int:
    """Return the resident memory of this process that no file backs."""
    # In pages: total size, resident, and of that file-backed or shared (man 5 proc).
    resident, shared = map(int, Path("/proc/self/statm").read_text("ascii").split()[1:3])
    return (resident - shared) * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class MemoryMark:
    """Memory in use at one moment: by the calling thread, if that is known, and by all threads."""

    own_bytes: int
    allocated_bytes: int
    private_bytes: int


def mark() -> MemoryMark:
    """Return the memory in use now."""
    allocator = allocators.current()
    return MemoryMark(allocator.own_bytes(), allocator.in_use_bytes(), private_bytes())


def grown_bytes(since: MemoryMark, freed_bytes: int) -> int:
    """Return what this thread took since then; at least 16 KiB.

    `freed_bytes` is what others freed meanwhile. The growth of the whole process, by the allocator
    or by the kernel, counts instead if it is larger by more than NOISE_BYTES: a library's own
    threads load too.
    """
    now = mark()
    allocated = now.allocated_bytes - since.allocated_bytes + freed_bytes
    private = now.private_bytes - since.private_bytes + freed_bytes
    own = now.own_bytes - since.own_bytes if allocators.current().counts_by_thread else allocated
    seen = max(allocated, private)
    return max(own, seen if seen > own + NOISE_BYTES else 0, COPY_BYTES_MIN)


class MemoryWatch:
    """What copies map and what they left free, between two looks at this process's memory.

    `mapped_bytes` are weights in mapped files; `freed_bytes` were freed since the last `trim`.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.mapped_bytes = 0
        self.freed_bytes = 0
        self._budget_bytes = budget_bytes

    def measure(self) -> ev.MemoryMeasured:
        """Return what the process takes now, files that copies map included.

        Mapped pages count because they must be in memory to be fast. The allocator is asked for
        its free bytes only when memory is short, for glibc counts them by walking all of them.
        """
        taken_bytes = private_bytes() + self.mapped_bytes
        is_short = taken_bytes > SHORT_SHARE * self._budget_bytes
        free_bytes = allocators.current().free_bytes() if is_short else 0
        return ev.MemoryMeasured(taken_bytes, free_bytes)

    def is_trim_due(self) -> bool:
        """Return whether copies have left enough behind for `trim` to be worth its time."""
        return self.freed_bytes >= TRIM_AFTER_BYTES

    def trim(self) -> None:
        """Return free pages to the kernel. Takes milliseconds; meant for a thread of its own."""
        self.freed_bytes = 0
        allocators.current().trim()
