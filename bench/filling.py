"""Fill one worker with models until one must be evicted, in a process of its own.

    python -m bench.filling FOLDER MEMORY_BYTES REGISTERED

It prints its figures as JSON. FOLDER has the files NAME-NUMBER in `models`, `rows.npy` to ask them,
and right answers NUMBER.npy in `answers`. Names beyond the files mean the same files again. A model
takes what the process grew by, with its first prediction, and what it maps.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench import program, solo
from meshserve.core.memory import copy_lifecycle
from meshserve.core.values import model
from meshserve.worker.models import allocators, model_host, process_memory

WAIT_S = 120


@dataclass(frozen=True)
class Filled:
    """The figures. `is_full`: some model was evicted for the last one; otherwise all fitted."""

    resident: int
    is_full: bool
    registered: int
    process_bytes: int
    registered_bytes_each: float
    private_bytes_each: float
    mapped_bytes_each: float
    load_ms: tuple[float, ...]

    @property
    def bytes_each(self) -> float:
        """The bytes that one model takes, private and mapped."""
        return self.private_bytes_each + self.mapped_bytes_each

    def room_for(self, memory_bytes: int) -> int:
        """Return how many fit: counted if the worker was filled, else by the bytes of each."""
        return (
            self.resident
            if self.is_full
            else int((memory_bytes - self.process_bytes) / self.bytes_each)
        )


@dataclass(frozen=True)
class Given:
    """The contents of the folder."""

    folder: Path
    paths: list[Path]
    rows: np.ndarray
    answers: Mapping[int, np.ndarray]


def read(folder: Path) -> Given:
    """Return models by number, rows and answers."""
    paths = sorted(
        (folder / "models").iterdir(), key=lambda path: int(path.stem.rpartition("-")[2])
    )
    answers = {int(path.stem): np.load(path) for path in (folder / "answers").iterdir()}
    return Given(folder, paths, np.load(folder / "rows.npy"), answers)


def settled_bytes() -> int:
    """Return private memory once everything that can be given back is."""
    gc.collect()
    allocators.current().trim()
    return process_memory.private_bytes()


def numbered(number: int) -> str:
    return f"model-{number:06d}"


def entries(paths: list[Path], registered: int) -> list[solo.Entry]:
    """Return all names, each with its file."""
    files = itertools.cycle(paths)
    return [solo.Entry(numbered(number), next(files)) for number in range(registered)]


async def predict(host: model_host.ModelHost, number: int, rows: np.ndarray) -> np.ndarray:
    """Return the model's answer to the FP32 `rows` of shape (rows, n); load it first if need be."""
    resident = await host.lease(
        model.ModelId(numbered(number)), asyncio.get_running_loop().time() + WAIT_S
    )
    try:
        return next(
            iter(
                resident.loaded_copy.loaded.predict(
                    {resident.signature.inputs[0].name: rows}, ()
                ).values()
            )
        )
    finally:
        host.release(resident)


async def fill(given: Given, memory_bytes: int, registered: int) -> Filled:
    """Load one model after another. Raises WrongAnswer."""
    paths, rows, names = given.paths, given.rows, max(registered, len(given.paths))
    empty_bytes = settled_bytes()
    async with solo.serving(given.folder, entries(paths, names), memory_bytes) as pool_worker:
        catalog_bytes = settled_bytes() - empty_bytes
        await predict(pool_worker.host, 0, rows)
        before_bytes = settled_bytes()
        load_ms = [ms async for ms in time_loads(pool_worker.host, len(paths), rows)]
        taken_bytes, resident = settled_bytes() - before_bytes, count_ready(pool_worker.host)
        filled = Filled(
            resident=resident,
            is_full=pool_worker.host.residency.counts.evictions > 0,
            registered=names,
            process_bytes=before_bytes,
            registered_bytes_each=catalog_bytes / names,
            private_bytes_each=taken_bytes / max(1, resident - 1),
            mapped_bytes_each=pool_worker.host.effects.memory.mapped_bytes / resident,
            load_ms=tuple(float(percentile) for percentile in np.percentile(load_ms, (50, 99))),
        )
        await check(pool_worker.host, given.answers, rows)
    return filled


async def time_loads(
    host: model_host.ModelHost, count: int, rows: np.ndarray
) -> AsyncIterator[float]:
    """Yield milliseconds of loads but the first, until one evicts; `rows` has shape (n, m)."""
    for number in range(1, count):
        began_s = time.perf_counter()
        await host.ensure_loaded(model.ModelId(numbered(number)), WAIT_S)
        yield (time.perf_counter() - began_s) * 1e3
        if host.residency.counts.evictions:
            return
        await predict(host, number, rows)


def count_ready(host: model_host.ModelHost) -> int:
    """Return how many models are in memory."""
    return sum(
        copy.state is copy_lifecycle.CopyPhase.READY for copy in host.residency.copies.values()
    )


async def check(
    host: model_host.ModelHost, answers: Mapping[int, np.ndarray], rows: np.ndarray
) -> None:
    """Compare some answers, of shape (rows, m), with the library's own. Raises WrongAnswer."""
    for number, expected in answers.items():
        if not np.allclose(await predict(host, number, rows), expected, rtol=1e-4, atol=1e-5):
            raise program.WrongAnswer(
                f"{numbered(number)} gives another answer than the library's own"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("memory_bytes", type=int)
    parser.add_argument("registered", type=int)
    args = parser.parse_args()
    print(
        json.dumps(asdict(asyncio.run(fill(read(args.folder), args.memory_bytes, args.registered))))
    )


if __name__ == "__main__":
    main()
