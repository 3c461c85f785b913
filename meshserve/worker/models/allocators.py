"""The C allocator of this process: jemalloc if it was preloaded, or glibc's.

With jemalloc, a worker of 150 MiB that had seen 6,000 tiny models held 1,259 of them at the end;
with glibc 910, and it took 37 s instead of 13: glibc counts by walking all that is free.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Protocol

JEMALLOC_CONF = "narenas:4,dirty_decay_ms:500,muzzy_decay_ms:0"
"""The value for MALLOC_CONF: few arenas, and free pages go back to the kernel within a second."""

# From glibc's malloc.h.
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
BIG_BLOCK_BYTES = 1 << 20
LOADERS_ARENA = 0
# MALLCTL_ARENAS_ALL of jemalloc 5.
ALL_ARENAS = 4096


class Allocator(Protocol):
    """Counts and settings that any allocator has."""

    counts_by_thread: bool
    """Whether `own_bytes` counts the calling thread alone."""

    def tune(self) -> None:
        """Set the allocator up for many models that come and go."""
        ...

    def tune_loader(self) -> None:
        """Set the calling thread up for loading models."""
        ...

    def trim(self) -> None:
        """Return free pages to the kernel."""
        ...

    def in_use_bytes(self) -> int:
        """Return the bytes that all threads have allocated and not freed."""
        ...

    def own_bytes(self) -> int:
        """Return the bytes that this thread has allocated minus those it has freed.

        The result is negative for a thread that frees memory of others.
        """
        ...

    def free_bytes(self) -> int:
        """Return the bytes in gaps between used blocks, which can't go back to the kernel."""
        ...


class Jemalloc:
    """jemalloc 5 by its `mallctl`. Counting takes the same time however much memory is in use."""

    counts_by_thread = True

    def __init__(self, library: ctypes.CDLL) -> None:
        self._mallctl = library.mallctl

    @property
    def counts(self) -> bool:
        """Return whether it was built with statistics, which is optional."""
        value, size = ctypes.c_bool(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_bool))
        failed = self._mallctl(
            b"config.stats", ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
        )
        return not failed and value.value

    def tune(self) -> None:
        """Do nothing: JEMALLOC_CONF was read when the process began."""

    def tune_loader(self) -> None:
        """Give all loading threads one arena, so that a new model fits into the gaps of freed ones.

        This reduced the gaps from 18 MB to 7 MB.
        """
        self._write(b"thread.arena", ctypes.c_uint(LOADERS_ARENA))

    def trim(self) -> None:
        """Return all free pages to the kernel before their decay time."""
        self._mallctl(b"arena.%d.purge" % ALL_ARENAS, None, None, None, ctypes.c_size_t(0))

    def in_use_bytes(self) -> int:
        """Return the bytes allocated now. Refreshing the counts takes some 50 µs."""
        # jemalloc updates its counts only with a write to its epoch.
        self._write(b"epoch", ctypes.c_uint64(1))
        return self._read(b"stats.allocated")

    def own_bytes(self) -> int:
        """Return this thread's own balance in bytes, whatever other threads do."""
        return self._read(b"thread.allocated") - self._read(b"thread.deallocated")

    def free_bytes(self) -> int:
        """Return the free bytes of pages in use, which a next copy of similar size can take."""
        # First, because it refreshes the counts of which the next line reads another.
        in_use_bytes = self.in_use_bytes()
        return max(0, self._read(b"stats.active") - in_use_bytes)

    def _read(self, name: bytes) -> int:
        value = ctypes.c_uint64()
        # Sizes are wrapped, because ctypes passes a plain number as a C `int` of 32 bits.
        size = ctypes.c_size_t(ctypes.sizeof(value))
        failed = self._mallctl(
            name, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
        )
        assert not failed, f"jemalloc has no {name.decode()}"
        return value.value

    def _write(self, name: bytes, value: Any) -> None:
        self._mallctl(name, None, None, ctypes.byref(value), ctypes.c_size_t(ctypes.sizeof(value)))


class _MallInfo2(ctypes.Structure):
    """glibc's `struct mallinfo2` (2.33 and later), summed over all arenas."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


class Glibc:
    """glibc's malloc. It counts by walking all free blocks, a millisecond or more if many."""

    counts_by_thread = False

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.mallinfo2.restype = _MallInfo2

    def tune(self) -> None:
        """Use few arenas, and map each big block separately.

        Then the memory of a freed model goes back to the kernel instead of being a gap.
        """
        self._library.mallopt(M_ARENA_MAX, 2)
        # Set, because glibc else raises it when a mapped block is freed (mallopt(3)).
        self._library.mallopt(M_MMAP_THRESHOLD, BIG_BLOCK_BYTES)

    def tune_loader(self) -> None:
        """Do nothing: arenas can't be chosen."""

    def trim(self) -> None:
        """Return free pages to the kernel, even from the middle of an arena."""
        self._library.malloc_trim(0)

    def in_use_bytes(self) -> int:
        """Return the bytes allocated in arenas and in mapped blocks."""
        info = self._library.mallinfo2()
        return int(info.uordblks + info.hblkhd)

    def own_bytes(self) -> int:
        """Return the balance of all threads, because glibc does not count by thread."""
        return self.in_use_bytes()

    def free_bytes(self) -> int:
        """Return the free bytes, those of returned pages included."""
        return int(self._library.mallinfo2().fordblks)


class UnknownAllocator:
    """An allocator without counts."""

    counts_by_thread = False

    def tune(self) -> None:
        """Do nothing."""

    tune_loader = trim = tune

    def in_use_bytes(self) -> int:
        """Return 0: unknown."""
        return 0

    own_bytes = free_bytes = in_use_bytes


@functools.cache
def current() -> Allocator:
    """Return the allocator of this process."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallctl"):
        jemalloc = Jemalloc(library)
        return jemalloc if jemalloc.counts else UnknownAllocator()
    return Glibc(library) if hasattr(library, "mallinfo2") else UnknownAllocator()
