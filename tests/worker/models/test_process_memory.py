from __future__ import annotations

import gc
import mmap
from pathlib import Path

from meshserve.worker.models import allocators, process_memory

BYTES = 64 << 20  # jemalloc counts up to a quarter more: its sizes have steps


def test_growth_is_measured_and_so_is_what_is_freed() -> None:
    allocators.current().tune()
    gc.collect()  # what earlier tests left must not be freed meanwhile
    before, private_bytes = process_memory.OWN.mark(), process_memory.private_bytes()
    taken = bytearray(BYTES)
    assert BYTES <= process_memory.OWN.grown_bytes(before, 0) < BYTES * 1.3
    assert process_memory.private_bytes() - private_bytes > BYTES * 0.9
    del taken
    allocators.current().trim()
    assert process_memory.OWN.grown_bytes(before, 0) < BYTES / 2
    assert process_memory.private_bytes() - private_bytes < BYTES / 2


def test_memory_past_the_allocator_counts_if_it_is_more_than_noise() -> None:
    before = process_memory.OWN.mark()
    with mmap.mmap(-1, BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapped:
        mapped.write(b"\1" * BYTES)
        assert process_memory.OWN.grown_bytes(before, 0) >= BYTES * 0.9


def test_a_copy_takes_at_least_the_minimum() -> None:
    assert (
        process_memory.OWN.grown_bytes(process_memory.OWN.mark(), 0)
        >= process_memory.COPY_BYTES_MIN
    )


def test_mapped_files_are_not_private_memory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(BYTES))
    before = process_memory.private_bytes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        assert process_memory.private_bytes() - before < BYTES / 2
