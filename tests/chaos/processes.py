"""Faults of processes: SIGKILL, and SIGSTOP with SIGCONT."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import Any

import psutil

from tests.chaos import world

REFUSALS = frozenset({"503", "broken", "CANCELLED", "UNKNOWN"})
"""What a client sees of a connection that is lost."""
NOTICED_S = 5.0
"""How long a client may send on a connection whose other end is dead."""
FELT_S = 10.0
"""How long after a stroke the slowest request counts as slowed down by it."""


async def kill_worker(arena: world.World, chance: random.Random) -> None:
    """SIGKILL a worker: no request fails, and it is back."""
    async with arena.struck_worker(chance) as worker:
        felt = arena.judge.allow("kill worker", FELT_S)
        world.send_signal(worker["pid"], signal.SIGKILL)
        felt.back_s = await arena.until(
            lambda status: (
                status["routed"]
                and _is_another(world.workers_of(status).get(worker["id"]), worker["pid"])
            ),
            f"{worker['id']} is back",
        )


def _is_another(worker: dict[str, Any] | None, old_pid: int) -> bool:
    return worker is not None and worker["state"] == "ready" and worker["pid"] not in (0, old_pid)


async def stop_worker(arena: world.World, chance: random.Random) -> None:
    """SIGSTOP a worker: after 0.8 s it is killed, and its requests are answered by others."""
    async with arena.struck_worker(chance) as worker:
        felt = arena.judge.allow("stop worker", FELT_S)
        await _stopped(worker["pid"], chance.uniform(1, 6))
        felt.back_s = await arena.until(
            lambda status: (
                status["routed"] and _is_alive(world.workers_of(status).get(worker["id"]))
            ),
            f"{worker['id']} is ready",
        )


def _is_alive(worker: dict[str, Any] | None) -> bool:
    # One that was killed counts as ready until its death is noticed.
    return worker is not None and worker["state"] == "ready" and psutil.pid_exists(worker["pid"])


async def _stopped(pid: int, time_s: float) -> None:
    world.send_signal(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(time_s)
    finally:
        world.send_signal(pid, signal.SIGCONT)


async def kill_controller(arena: world.World, _: random.Random) -> None:
    """SIGKILL the controller: predictions go on, management waits for the next one."""
    pid = (await arena.status())["controller"]["pid"]
    felt = arena.judge.allow("kill controller", FELT_S)
    world.send_signal(pid, signal.SIGKILL)
    felt.back_s = await arena.until(
        lambda status: status["controller"]["pid"] != pid and status["state"] == "ready",
        "another controller is ready",
    )


async def stop_controller(arena: world.World, chance: random.Random) -> None:
    """SIGSTOP the controller: predictions go on, and after 0.8 s it is killed."""
    pid = (await arena.status())["controller"]["pid"]
    felt = arena.judge.allow("stop controller", FELT_S)
    await _stopped(pid, chance.uniform(2, 8))
    felt.back_s = await arena.until(world.are_all_ready, "all workers are ready")


async def kill_envoy(arena: world.World, chance: random.Random) -> None:
    """SIGKILL Envoy: what it had taken is lost, new connections wait for the next one."""
    async with arena.gateway(chance) as gateway:
        felt = arena.judge.allow("kill Envoy", NOTICED_S, REFUSALS)
        world.send_signal(gateway["envoy_pid"], signal.SIGKILL)
        felt.back_s = await arena.until_gateway("envoy_pid", gateway["envoy_pid"])


async def stop_envoy(arena: world.World, chance: random.Random) -> None:
    """SIGSTOP Envoy: requests wait, and after 0.8 s it is killed."""
    async with arena.gateway(chance) as gateway:
        time_s = chance.uniform(0.3, 2)
        felt = arena.judge.allow("stop Envoy", NOTICED_S + time_s, REFUSALS)
        await _stopped(gateway["envoy_pid"], time_s)
        felt.back_s = await arena.until_gateway("envoy_pid")


async def kill_gateway(arena: world.World, chance: random.Random) -> None:
    """SIGKILL the gateway's actor: Envoy goes on, and the next actor takes it over."""
    async with arena.gateway(chance) as gateway:
        felt = arena.judge.allow("kill gateway", FELT_S)
        world.send_signal(gateway["pid"], signal.SIGKILL)
        felt.back_s = await arena.until_gateway("pid", gateway["pid"])


async def stop_gateway(arena: world.World, chance: random.Random) -> None:
    """SIGSTOP the gateway's actor: Envoy goes on without it, and after 0.8 s it is killed."""
    async with arena.gateway(chance) as gateway:
        felt = arena.judge.allow("stop gateway", FELT_S)
        await _stopped(gateway["pid"], chance.uniform(0.3, 6))
        felt.back_s = await arena.until_gateway("pid")


async def kill_replica(arena: world.World, chance: random.Random) -> None:
    """SIGKILL one of an LLM's replicas: what it generates breaks, the other one goes on."""
    async with arena.only(arena.subjects[world.LLM][0]):
        await arena.until(world.has_all_replicas, "all replicas are ready")
        replica = chance.choice(world.replicas_of(await arena.status()))
        statuses = REFUSALS | {"500"}
        felt = arena.judge.allow("kill replica", NOTICED_S, statuses, world.LLM)
        world.send_signal(replica["pid"], signal.SIGKILL)
        felt.back_s = await arena.until(
            lambda status: (
                world.has_all_replicas(status)
                and replica["pid"] not in {other["pid"] for other in world.replicas_of(status)}
            ),
            "all replicas are ready",
        )


async def kill_isolated(arena: world.World, _: random.Random) -> None:
    """SIGKILL the processes of isolated models: what runs in them fails, and nothing else."""
    for subject in arena.subjects[world.ISOLATED]:
        arena.judge.allow("kill isolated", FELT_S, frozenset({"500", "424"}), subject.name)
    for pid in arena.isolated_pids():
        world.send_signal(pid, signal.SIGKILL)


async def stop_isolated(arena: world.World, chance: random.Random) -> None:
    """SIGSTOP the processes of isolated models for a moment: their requests wait."""
    arena.judge.allow("stop isolated", FELT_S)
    await asyncio.gather(*(_stopped(pid, chance.uniform(1, 3)) for pid in arena.isolated_pids()))
