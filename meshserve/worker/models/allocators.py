"""The C allocator of this process, asked and told by its own interface: jemalloc where it was loaded before all else, or glibc's."""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Protocol

JEMALLOC_CONF = "narenas:4,dirty_decay_ms:500,muzzy_decay_ms:0"
"""For the variable MALLOC_CONF: few arenas, and what is free goes back to the kernel within a second."""

M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
BIG_BLOCK_BYTES = 1 << 20
LOADERS_ARENA = 0
ALL_ARENAS = 4096


class Allocator(Protocol):
    """What can be asked of any allocator."""

    counts_by_thread: bool
    """Whether `own_bytes` is of the calling thread alone."""

    def tune(self) -> None:
        """Fit for many models that come and go."""
        ...

    def tune_loader(self) -> None:
        """The same for a thread that loads."""
        ...

    def trim(self) -> None:
        """Hand free pages back to the kernel."""
        ...

    def in_use_bytes(self) -> int:
        """What all threads have and did not give back."""
        ...

    def own_bytes(self) -> int:
        """What this thread took less what it gave back, whoever had taken that; less than nothing for one that only gives back."""
        ...

    def free_bytes(self) -> int:
        """What lies free between what is in use and can't be handed back."""
        ...


class Jemalloc:
    """jemalloc 5 by its `mallctl`: its counts cost the same however much memory there is."""

    counts_by_thread = True

    def __init__(self, library: ctypes.CDLL) -> None:
        self._mallctl = library.mallctl

    @property
    def counts(self) -> bool:
        """Whether it was built to count, which is a choice."""
        value, size = ctypes.c_bool(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_bool))
        failed = self._mallctl(
            b"config.stats", ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
        )
        return not failed and value.value

    def tune(self) -> None:
        """JEMALLOC_CONF has done it."""

    def tune_loader(self) -> None:
        """All that is loaded lies together: what one leaves behind the next can use, whichever threads they were loaded by."""
        self._write(b"thread.arena", ctypes.c_uint(LOADERS_ARENA))

    def trim(self) -> None:
        """Hand all pages back that are free as a whole, before their time."""
        self._mallctl(b"arena.%d.purge" % ALL_ARENAS, None, None, None, ctypes.c_size_t(0))

    def in_use_bytes(self) -> int:
        """As of now: the counts are brought up to date first, which takes some fifty microseconds."""
        self._write(b"epoch", ctypes.c_uint64(1))
        return self._read(b"stats.allocated")

    def own_bytes(self) -> int:
        """Exact, whatever other threads do meanwhile."""
        return self._read(b"thread.allocated") - self._read(b"thread.deallocated")

    def free_bytes(self) -> int:
        """Room within pages that are in use: the next copy of alike size takes it."""
        in_use_bytes = self.in_use_bytes()
        return max(0, self._read(b"stats.active") - in_use_bytes)

    def _read(self, name: bytes) -> int:
        value = ctypes.c_uint64()
        size = ctypes.c_size_t(ctypes.sizeof(value))
        failed = self._mallctl(
            name, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
        )
        assert not failed, f"jemalloc does not tell its {name.decode()}"
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
    """glibc's malloc. It counts by walking all that is free: a millisecond and more where that is much."""

    counts_by_thread = False

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.mallinfo2.restype = _MallInfo2

    def tune(self) -> None:
        """Few arenas, and big blocks of their own: what a model gives back goes to the kernel instead of staying between others."""
        self._library.mallopt(M_ARENA_MAX, 2)
        self._library.mallopt(M_MMAP_THRESHOLD, BIG_BLOCK_BYTES)

    def tune_loader(self) -> None:
        """Nothing more."""

    def trim(self) -> None:
        """Pages in the midst of an arena go as well."""
        self._library.malloc_trim(0)

    def in_use_bytes(self) -> int:
        """Of arenas and of blocks of their own."""
        seen = self._library.mallinfo2()
        return int(seen.uordblks + seen.hblkhd)

    def own_bytes(self) -> int:
        """All threads': it does not tell them apart."""
        return self.in_use_bytes()

    def free_bytes(self) -> int:
        """With pages that were handed back: it does not tell those apart either."""
        return int(self._library.mallinfo2().fordblks)


class Unknown:
    """One that tells nothing."""

    counts_by_thread = False

    def tune(self) -> None:
        """Can't be told anything."""

    tune_loader = trim = tune

    def in_use_bytes(self) -> int:
        """Unknown."""
        return 0

    own_bytes = free_bytes = in_use_bytes


@functools.cache
def current() -> Allocator:
    """The one that serves this process."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallctl"):
        jemalloc = Jemalloc(library)
        return jemalloc if jemalloc.counts else Unknown()
    return Glibc(library) if hasattr(library, "mallinfo2") else Unknown()
