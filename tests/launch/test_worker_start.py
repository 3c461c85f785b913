"""A worker's process, made by its own module."""

from __future__ import annotations

from pathlib import Path

from meshserve.core.values import desired, model
from meshserve.launch import worker_start
from meshserve.logs import log_files
from tests.launch import processes


def test_it_imports_no_more_than_a_worker_needs() -> None:
    assert not processes.imported_by(worker_start.__name__) & {"pydantic", "ray", "sqlalchemy"}


async def test_a_worker_has_its_log(tmp_path: Path) -> None:
    settings = desired.WorkerSettings(
        cache_path=str(tmp_path / "cache"), memory=model.Footprint(1 << 30)
    )
    address = model.ServerAddress("default-0", str(tmp_path))
    running = worker_start.build_worker(log_files.LogPlan(str(tmp_path)), address, settings)
    await running.stop()
    assert (tmp_path / "default-0.log").exists()
