"""Send random requests to four times as many tiny models as fit into one worker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench import meshes, program, traffic

TIMES = 4
FILL_IN_FLIGHT = 8
REGISTER_S_MAX = 600


@dataclass(frozen=True)
class Plan:
    """Files at most, the worker's memory, seconds, and requests in flight."""

    models: int
    memory: str
    seconds: float
    in_flight: int


WHOLE = Plan(models=10_000, memory="200MiB", seconds=60, in_flight=8)
QUICK = Plan(models=1_600, memory="160MiB", seconds=4, in_flight=4)


@dataclass(frozen=True)
class Thrashed:
    """The figures. `resident` models fitted; `models` were asked for."""

    models: int
    resident: int
    requests_per_s: float
    evictions: int
    asked: list[traffic.Asked]


def run(console: Console, plan: Plan, folder: Path) -> Thrashed:
    """Run it in a mesh of its own. Raises WrongAnswer for anything but right answers."""
    console.print(f"writing {plan.models:,} models", highlight=False)
    traffic.write_repository(folder / "models", plan.models)
    repository = [{"path": str(folder / "models"), "watch": False}]
    with meshes.up(folder, meshes.pool(1, plan.memory), repositories=repository) as mesh:
        mesh.system.wait_until(
            lambda: meshes.registered(mesh.endpoint) >= plan.models, REGISTER_S_MAX
        )
        mesh.system.wait_until(lambda: meshes.is_ready(mesh.endpoint), REGISTER_S_MAX)
        return asyncio.run(_thrash(console, plan, mesh))


async def _thrash(console: Console, plan: Plan, mesh: meshes.Mesh) -> Thrashed:
    """Fill the worker until models are evicted, then ask for four times what it holds."""
    async with traffic.callers(mesh.endpoint, plan.models) as callers:
        filled = await callers.each(range(plan.models), FILL_IN_FLIGHT)
        before = await asyncio.to_thread(meshes.settled_totals, mesh)
        models = min(plan.models, TIMES * before["resident"])
        console.print(f"{before['resident']:,} fit; asking for {models:,}", highlight=False)
        asked = await callers.closed(models, plan.seconds, plan.in_flight)
    faults = traffic.failures([*filled, *asked])
    if faults:
        raise program.WrongAnswer(
            f"{len(faults)} of {len(filled) + len(asked)} requests failed, the first: {faults[0]}"
        )
    after = await asyncio.to_thread(meshes.settled_totals, mesh, before["requests"] + len(asked))
    if after["restarts"] or not after["resident"]:
        raise program.WrongAnswer(f"the worker did not last: {after}")
    return Thrashed(
        models,
        after["resident"],
        len(asked) / plan.seconds,
        after["evictions"] - before["evictions"],
        asked,
    )
