"""What holds of jemalloc alone; run by `test_allocators.py` in a process that has it."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from meshserve.worker.models import allocators, process_memory

BYTES = 32 << 20
SMALL_BYTES, SMALLS = 4096, 2000
LIBRARY = ctypes.CDLL(None)
LIBRARY.malloc.restype = ctypes.c_void_p


def taken(count: Any, size_bytes: Any) -> Any:
    return [LIBRARY.malloc(ctypes.c_size_t(size_bytes)) for _ in range(count)]


def given_back(blocks: Any) -> None:
    for block in blocks:
        LIBRARY.free(ctypes.c_void_p(block))


def test_jemalloc_is_found() -> None:
    assert isinstance(allocators.current(), allocators.Jemalloc)


def test_other_threads_do_not_count_as_own() -> None:
    with ThreadPoolExecutor(1) as other:
        before = process_memory.OWN.mark()
        blocks = other.submit(taken, 256, SMALL_BYTES).result()
        assert process_memory.OWN.grown_bytes(before, 0) < 256 * SMALL_BYTES / 2
        mine = taken(256, SMALL_BYTES)
        other.submit(given_back, blocks).result()
        assert (
            256 * SMALL_BYTES <= process_memory.OWN.grown_bytes(before, 0) < 256 * SMALL_BYTES * 1.2
        )
        given_back(mine)


def test_memory_of_a_loads_helper_threads_counts_if_it_is_much() -> None:
    with ThreadPoolExecutor(1) as helper:
        before = process_memory.OWN.mark()
        block = helper.submit(taken, 1, BYTES).result()
        assert process_memory.OWN.grown_bytes(before, 0) >= BYTES
        # Unless models have run meanwhile, whose memory it may be.
        assert process_memory.OWN.grown_bytes(before, 0, has_runs=True) < BYTES / 2
        given_back(block)


def test_gaps_are_counted_and_used_again() -> None:
    allocator = allocators.current()
    allocator.tune_loader()
    allocator.trim()
    blocks = taken(SMALLS, SMALL_BYTES // 8)
    before_bytes = allocator.free_bytes()
    given_back(blocks[::2])
    gaps_bytes = allocator.free_bytes() - before_bytes
    assert gaps_bytes > SMALLS * SMALL_BYTES / 8 / 4
    again = taken(SMALLS // 2, SMALL_BYTES // 8)
    assert allocator.free_bytes() - before_bytes < gaps_bytes / 2
    given_back(blocks[1::2] + again)
