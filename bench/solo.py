"""One real worker in this process, without Ray, gateway and controller.

Its residency, storage and runtimes are as they are in a mesh.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

from meshserve.cluster import allocator_env
from meshserve.core.values import catalog, catalog_sync, desired, model
from meshserve.storage import artifact_store
from meshserve.worker import worker
from meshserve.worker.models import allocators


def environment() -> dict[str, str]:
    """Return the environment of a process with a worker's allocator."""
    return os.environ | allocator_env.variables(desired.WorkerSettings().allocator)


def be_a_worker() -> None:
    """Restart this program if it lacks a worker's allocator.

    Processes that it starts have the system's.
    """
    added = allocator_env.variables(desired.WorkerSettings().allocator)
    if added and not allocators.current().counts_by_thread:
        os.execve(sys.executable, sys.orig_argv, environment())
    for name in added:
        os.environ.pop(name, None)


@dataclass(frozen=True)
class Entry:
    """A model: its name, its file or folder, and its runtime if the file does not show it."""

    name: str
    path: Path
    runtime: str = ""


def declared(entry: Entry) -> catalog.ModelDeclared:
    """Return the entry as a worker is told of it."""
    return catalog.ModelDeclared(
        model.ModelSpec(model.ModelId(entry.name), str(entry.path), entry.runtime, trust=True)
    )


@contextlib.asynccontextmanager
async def serving(
    folder: Path, entries: Iterable[Entry], memory_bytes: int = 4 << 30
) -> AsyncIterator[worker.PoolWorker]:
    """Run a worker that knows these models and has loaded none, until the block ends."""
    settings = desired.WorkerSettings(memory=model.Footprint(memory_bytes))
    storage = artifact_store.ArtifactStore(
        str(folder / "cache"), settings.cache_bytes_max, settings.artifact_bytes_max
    )
    pool_worker = worker.PoolWorker(model.ServerAddress("solo", str(folder)), settings, storage)
    await pool_worker.start()
    try:
        for step in catalog_sync.full_steps(
            catalog_sync.split_changes([declared(entry) for entry in entries]), 0
        ):
            pool_worker.apply(step)
        yield pool_worker
    finally:
        await pool_worker.stop()
