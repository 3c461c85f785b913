"""The accidents of a simulation, each for some seconds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from tests.simulation import cluster, world

QUIET_LATENCY_S = 0.002
QUIET_WRITE_S = 0.001
RETRIED_S = 61.0
"""The longest wait between two tries of a load, and a little more."""

Fault = Callable[[float], Awaitable[None]]


class Faults:
    """Accidents by chance; each method takes the seconds that one lasts."""

    def __init__(self, world_: world.World, chance: random.Random) -> None:
        self._world = world_
        self._chance = chance
        self._weights: dict[Fault, float] = {
            self.kill_a_worker: 3,
            self.stop_a_worker: 1,
            self.cut_a_worker_off: 1,
            self.delay_messages: 1,
            self.kill_the_controller: 2,
            self.slow_the_registry: 1,
            self.break_the_registry: 1,
            self.hide_artifacts: 1,
            self.slow_the_storage: 1,
            self.kill_the_gateway: 1,
            self.refuse_a_start: 1,
            self.refuse_a_configuration: 1,
        }

    async def happen(self) -> None:
        """Have one accident happen, and return when it is over."""
        (fault,) = self._chance.choices(list(self._weights), list(self._weights.values()))
        for_s = self._chance.choice((0.5, 3.0, 12.0, 40.0))
        self._world.note(f"fault: {getattr(fault, '__name__', '')} for {for_s:g} s")
        await fault(for_s)

    def _worker(self) -> cluster.WorkerProcess | None:
        living = sorted(self._world.cluster.workers)
        if not living:
            return None
        worker_id = self._chance.choice(living)
        self._world.note(f"it is {worker_id}")
        return self._world.cluster.workers[worker_id]

    async def _trouble(self, for_s: float) -> None:
        """Wait; loads that fail of what happens meanwhile are tried again within a minute."""
        judge = self._world.oracle
        judge.troubled_until_s = max(
            judge.troubled_until_s, self._world.loop.time() + 2 * for_s + RETRIED_S
        )
        await asyncio.sleep(for_s)

    # Workers

    async def kill_a_worker(self, _: float) -> None:
        record = self._worker()
        if record is not None:
            signal_name = self._chance.choice(("SIGKILL", "SIGKILL", "SIGSEGV"))
            self._world.cluster.kill(record.id, signal_name)

    async def stop_a_worker(self, for_s: float) -> None:
        record = self._worker()
        if record is not None:
            record.process.stop()
            await self._trouble(for_s)
            self._world.loop.go_on(record.process)

    async def cut_a_worker_off(self, for_s: float) -> None:
        record = self._worker()
        if record is not None:
            record.is_cut_off = True
            await asyncio.sleep(for_s)
            record.is_cut_off = False

    async def refuse_a_start(self, _: float) -> None:
        self._world.cluster.start_failures += 1

    # The control plane

    async def kill_the_controller(self, for_s: float) -> None:
        if self._world.plane is not None:
            await self._world.restart_controller(min(for_s, 5.0))

    async def delay_messages(self, for_s: float) -> None:
        self._world.cluster.latency_s = self._chance.choice((0.1, 1.0, 12.0))
        await asyncio.sleep(for_s)
        self._world.cluster.latency_s = QUIET_LATENCY_S

    async def slow_the_registry(self, for_s: float) -> None:
        self._world.registry.slow_s = for_s
        await asyncio.sleep(for_s)
        self._world.registry.slow_s = QUIET_WRITE_S

    async def break_the_registry(self, for_s: float) -> None:
        self._world.registry.is_broken = True
        await asyncio.sleep(for_s)
        self._world.registry.is_broken = False

    async def kill_the_gateway(self, _: float) -> None:
        self._world.cluster.kill_gateway()

    async def refuse_a_configuration(self, _: float) -> None:
        self._world.cluster.refusals += 1

    # Storage

    async def hide_artifacts(self, for_s: float) -> None:
        repository = self._world.repository
        uris = sorted(repository.uris)
        chosen = self._chance.sample(uris, min(3, len(uris)))
        repository.unreadable.update(chosen)
        await self._trouble(for_s)
        repository.unreadable.difference_update(chosen)

    async def slow_the_storage(self, for_s: float) -> None:
        self._world.repository.slow_s = for_s
        await self._trouble(for_s)
        self._world.repository.slow_s = 0.0
