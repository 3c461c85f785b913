"""One chaos run: a mesh, traffic, faults by a seed, and the verdict."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshserve import tasks
from tests.chaos import callers, catalog, census, churn, flow, hostile, oracle, plan, stalls, world
from tests.e2e import engines, running

logger = logging.getLogger(__name__)

SETTLE_S = 30.0
"""Longer than what is kept for a while after a fault: suspects' processes, idle connections."""
CLOSING_S = 60.0
STALLED_SHARE_MAX = 0.02
"""Failures that stalls of the whole machine may excuse, of all answers. A wrong one is never."""


@dataclass(frozen=True)
class Order:
    """What to run: requests a second, and the faults, all of them if `only` is empty."""

    seed: int = 0
    time_s: float = 120.0
    per_s: float = 100.0
    only: tuple[str, ...] = ()


@dataclass
class Verdict:
    """What a run has shown."""

    order: Order
    judge: oracle.Judge
    counts: dict[str, int]
    leaks: list[str]
    table: list[str]
    stalls: list[stalls.Stall]

    def faults(self) -> list[str]:
        """Return all that may not be: few failures of a machine that stood still are no fault."""
        stalled = self.judge.stalled
        stalled_max = self.judge.answered * STALLED_SHARE_MAX
        counted = self.judge.failures + (stalled if len(stalled) > stalled_max else [])
        return [*self.judge.wrong, *(failure.text for failure in counted), *self.leaks]


def perform(order: Order, folder: Path) -> Verdict:
    """Run chaos in a folder for temporary files, and return the verdict. Raises world.Late."""
    arena = world.World(folder)
    hostile.bomb()  # ahead: it takes a second of CPU
    temporary = folder / "t"
    temporary.mkdir()
    home = folder / "home"
    variables: dict[str, Any] = {"TMPDIR": str(temporary), **engines.installed(folder / "site")}
    beats = folder / "stalls"
    with (
        stalls.watched(beats),
        running.mesh(arena.document(), home=home, **variables) as mesh,
    ):
        arena.mesh = mesh
        counts = asyncio.run(_under_fire(arena, order))
    leaks = [*arena.leaks, *census.left_behind(mesh, arena.shared, temporary)]
    pauses = stalls.read(beats)
    arena.judge.set_apart(pauses)
    return Verdict(order, arena.judge, counts, leaks, arena.figures, pauses)


async def _under_fire(arena: world.World, order: Order) -> dict[str, int]:
    arena.operator = callers.Operator(arena.mesh.listen)
    try:
        async with callers.Callers(arena.mesh.listen) as clients:
            traffic = flow.Flow(arena, clients, order.seed)
            for subject in arena.subjects[world.TURNING]:
                await churn.put(arena, subject, 0)
            await traffic.warm_up()
            async with traffic.flowing(order.per_s):
                await asyncio.sleep(flow.RAMP_S)
            await asyncio.sleep(flow.RAMP_S)
            begun = census.take(arena.mesh)
            arena.shared |= census.shared_memory(arena.mesh)
            logger.info("the faults begin")
            async with traffic.flowing(order.per_s):
                counts = await _strike(arena, order)
            arena.figures.append(f"not sent, as so many were under way: {traffic.unsent}")
            logger.info("the faults are over: %d right answers", arena.judge.answered)
            await _settle(arena, traffic)
            logger.info("every model has been asked for its newest content")
        await asyncio.sleep(SETTLE_S if order.time_s > SETTLE_S else 1)
        await _unload_all(arena)
        ended = census.take(arena.mesh)
        arena.shared |= census.shared_memory(arena.mesh)
        arena.leaks += census.grown(begun, ended)
        arena.figures += census.compared(begun, ended)
    finally:
        await arena.operator.close()
    return counts


async def _unload_all(arena: world.World) -> None:
    """Unload every model, and wait until no model has a process of its own."""
    for group, subjects in arena.subjects.items():
        for subject in subjects if group != world.LLM else ():
            path = f"models/{subject.name}/unload"
            await arena.manage("POST", path, None, "unload at the end", 200, 404)
    for _ in range(int(SETTLE_S / world.POLL_S)):
        if not census.has_model_processes(arena.mesh):
            return
        await asyncio.sleep(world.POLL_S)


async def _strike(arena: world.World, order: Order) -> dict[str, int]:
    """Let all faults strike at their times; return how often each did."""
    counts: dict[str, int] = {}
    begin_s = arena.judge.begin_s = time.monotonic()
    under_way = []
    for stroke in plan.strokes(order.seed, order.time_s, catalog.WEIGHTS, order.only):
        await asyncio.sleep(max(0.0, begin_s + stroke.at_s - time.monotonic()))
        counts[stroke.fault] = counts.get(stroke.fault, 0) + 1
        under_way.append(tasks.spawn(_perform(arena, stroke), stroke.fault, is_awaited=True))
    await asyncio.gather(*under_way)
    await asyncio.sleep(max(0.0, begin_s + order.time_s - time.monotonic()))
    return counts


async def _perform(arena: world.World, stroke: plan.Stroke) -> None:
    logger.info("%s", stroke)
    begin_s = time.monotonic()
    try:
        await catalog.FAULTS[stroke.fault].strike(arena, random.Random(stroke.seed))
    except world.Late as late:
        arena.judge.complain(f"{stroke.fault}: {late}", begin_s)
    except Exception as error:
        # A bug of the fault's must not end the run, whose other faults have something to tell.
        logger.exception("%s", stroke)
        arena.judge.complain(f"{stroke.fault} has a bug: {error!r}")


async def _settle(arena: world.World, traffic: flow.Flow) -> None:
    """Demand that every model answers by its newest content in the end."""
    await arena.until(world.are_all_ready, "all workers are ready at the end")
    end_s = time.monotonic() + CLOSING_S
    for group in arena.subjects.values():
        await traffic.demand_newest(group, end_s)
