from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from meshserve.cluster import allocator_env
from meshserve.worker.models import allocators


def mapped_by(pid: Any) -> Any:
    return Path(f"/proc/{pid}/maps").read_text()


def test_jemalloc_is_the_one_that_ray_ships() -> None:
    assert allocator_env.variables("jemalloc") == {
        "LD_PRELOAD": str(allocator_env.JEMALLOC),
        "MALLOC_CONF": allocators.JEMALLOC_CONF,
    }
    assert allocator_env.JEMALLOC.is_file()


def test_without_jemalloc_the_system_allocator_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(allocator_env, "JEMALLOC", tmp_path / "none.so")
    assert allocator_env.variables("jemalloc") == {}


def test_the_system_allocator_needs_no_variables() -> None:
    assert allocator_env.variables("system") == {}


@pytest.mark.edge
@pytest.mark.slow
@pytest.mark.parametrize("allocator", ["jemalloc", "system"])
async def test_a_worker_has_the_allocator_of_its_pool(
    cluster: Any, settings: Any, allocator: str
) -> None:
    started = await cluster.start_worker(
        "default-0", dataclasses.replace(settings, allocator=allocator)
    )
    try:
        assert (allocator_env.JEMALLOC.name in mapped_by(started.pid)) == (allocator == "jemalloc")
    finally:
        await cluster.stop_worker("default-0")
