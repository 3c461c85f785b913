"""What this process takes: read from the allocator and from the kernel, and given back to it."""

from __future__ import annotations

import ctypes
import gc
import mmap
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = mmap.PAGESIZE
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
BIG_BLOCK_BYTES = 1 << 20
RSS_NOISE_BYTES = 4 << 20
COPY_BYTES_MIN = 16 << 10


class _MallInfo2(ctypes.Structure):
    """glibc's `struct mallinfo2` (2.33 and later), summed over all arenas."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    )


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return None
    library.mallinfo2.restype = _MallInfo2
    return library


_GLIBC = _glibc()


def tune_allocator() -> None:
    """Few arenas, and big blocks of their own: what a model gives back goes back to the kernel instead of staying between the others."""
    if _GLIBC is not None:
        _GLIBC.mallopt(M_ARENA_MAX, 2)
        _GLIBC.mallopt(M_MMAP_THRESHOLD, BIG_BLOCK_BYTES)


def calm_collector() -> None:
    """Rarer full collections: with tens of thousands of models in memory each one holds all requests up for tenths of a second."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def trim() -> None:
    """Hand free pages back to the kernel."""
    if _GLIBC is not None:
        _GLIBC.malloc_trim(0)


def free_bytes() -> int:
    """What the allocator holds free. Walks all of it: a millisecond where much is."""
    return 0 if _GLIBC is None else int(_GLIBC.mallinfo2().fordblks)


def private_bytes() -> int:
    """Resident memory of this process that no file backs."""
    resident, shared = map(int, Path("/proc/self/statm").read_text("ascii").split()[1:3])
    return (resident - shared) * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Mark:
    """What was in use at one moment."""

    allocated_bytes: int
    private_bytes: int


def mark() -> Mark:
    """What is in use now."""
    if _GLIBC is None:
        return Mark(0, private_bytes())
    seen = _GLIBC.mallinfo2()
    return Mark(seen.uordblks + seen.hblkhd, private_bytes())


def grown_bytes(since: Mark, freed_bytes: int) -> int:
    """What came to be in use since then, if `freed_bytes` went out of use meanwhile; never under 16 KiB.

    The allocator's word counts, or the kernel's where that is more by more than noise.
    """
    now = mark()
    allocated = now.allocated_bytes - since.allocated_bytes + freed_bytes
    private = now.private_bytes - since.private_bytes + freed_bytes
    return max(allocated, private if private > allocated + RSS_NOISE_BYTES else 0, COPY_BYTES_MIN)
