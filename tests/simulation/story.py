"""What happens in one seed: users, faults, and the end, when all must be well again."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from meshserve import tasks
from tests.simulation import aftermath, callers, contents, faults, oracle, world

MIB = world.MIB
ACTIVE_S = 60.0
CALM_S_MAX = 300.0


class Story:
    """The story of one seed, told by chance."""

    def __init__(self, world_: world.World) -> None:
        self.world = world_
        self.chance = random.Random(world_.seed + 10)
        self.names = [f"m{number}" for number in range(self.chance.randint(2, 7))]
        self.is_over = False
        self.has_poison = self.chance.random() < 0.25
        self._busy: list[asyncio.Task[Any]] = []

    async def tell(self) -> None:
        """Play the whole story."""
        self.world.open()
        self.world.document = self._config()
        self.world.note(f"config {self.world.document}")
        await self.world.start_controller()
        await asyncio.gather(*(self._register(name, "1") for name in self.names))
        self._busy = [
            tasks.spawn(self._call(), "calls", is_awaited=True),
            tasks.spawn(self._call(), "more calls", is_awaited=True),
            tasks.spawn(self._change(), "changes", is_awaited=True),
            tasks.spawn(self._disturb(), "faults", is_awaited=True),
        ]
        await asyncio.gather(*self._busy)
        self.world.note("all faults are over")
        await self._converge()
        await asyncio.sleep(aftermath.QUIET_S)
        aftermath.check(self.world)

    def _config(self) -> dict[str, Any]:
        chance = self.chance
        pool = {
            "workers": chance.randint(1, 3),
            "memory": chance.choice((50, 60, 120)) * MIB,
            "loads_parallel": chance.choice((1, 2, 4)),
            "eviction": chance.choice(("gdsf", "lru")),
            "load_timeout_s": 10.0,
        }
        if chance.random() < 0.2:
            pool["idle_unload_s"] = 15.0
        if chance.random() < 0.1:
            pool |= {"isolate": "process", "memory": 150 * MIB}
        return {"pools": {"default": pool}}

    # Users

    def _content(self) -> contents.Content:
        chance = self.chance
        fields: dict[str, Any] = {
            "size_bytes": chance.choice((64 << 10, MIB, 3 * MIB, 6 * MIB)),
            "load_s": chance.choice((0.0, 0.05, 0.05, 0.4, 2.0)),
            "run_s": chance.choice((0.0001, 0.0001, 0.002, 0.3)),
            "hint": chance.choice((0.8, 1.0, 1.5, 2.0)),
        }
        kind = chance.random()
        if kind < 0.1:
            fields["is_broken"] = True
        elif kind < 0.13:
            fields["hangs"] = "load"
        elif kind < 0.25 and self.has_poison:
            fields["kills"] = chance.choice(("load", "run"))
        return self.world.new_content(**fields)

    async def _register(self, name: str, version: str) -> None:
        content = self._content()
        spec = self.world.spec(name, version, content)
        self.world.note(f"register {spec.id}: {content}")
        await self.world.change(
            name,
            {version: content.number},
            lambda plane: plane.admin.register(spec, is_replacing=True, is_owner=True),
        )

    async def _remove(self, name: str, version: str) -> None:
        versions = [version] if version else list(self.world.oracle.facts.get(name, {}))
        self.world.note(f"remove {name}:{version}")
        await self.world.change(
            name,
            dict.fromkeys(versions, oracle.ABSENT),
            lambda plane: plane.admin.remove(name, version),
        )

    async def _call(self) -> None:
        waiting: set[asyncio.Task[Any]] = set()
        while not self.is_over:
            await asyncio.sleep(self.chance.expovariate(3.0))
            for _ in range(self.chance.choice((1, 1, 1, 4))):
                waiting.add(tasks.spawn(self._ask(), "request", is_awaited=True))
            for done in [task for task in waiting if task.done()]:
                waiting.discard(done)
                done.result()
        await asyncio.gather(*waiting)

    async def _ask(self) -> None:
        chance = self.chance
        name = self.names[min(int(chance.expovariate(0.6)), len(self.names) - 1)]
        version = chance.choice(("", "", "", "1", "2"))
        value = float(chance.randint(1, 1000))
        if chance.random() < 0.03:
            value = -value
        elif self.has_poison and chance.random() < 0.02:
            value = contents.KILLER
        await self.world.ask(name, version, value, chance.choice((2.0, 10.0, 30.0)))

    async def _change(self) -> None:
        waiting: list[asyncio.Task[Any]] = []
        while not self.is_over:
            await asyncio.sleep(self.chance.expovariate(0.3))
            waiting.append(tasks.spawn(self._change_once(), "change", is_awaited=True))
        await asyncio.gather(*waiting)

    async def _change_once(self) -> None:
        chance = self.chance
        name = chance.choice(self.names)
        kind = chance.random()
        if kind < 0.5:
            await self._register(name, chance.choice(("1", "1", "2")))
        elif kind < 0.62:
            await self._remove(name, chance.choice(("", "1", "2")))
        else:
            version = chance.choice(("", "1"))
            admin: dict[str, Any] = {
                "load": lambda plane: plane.admin.load(name, version),
                "unload": lambda plane: plane.admin.unload(name, version),
                "pin": lambda plane: plane.admin.pin(name, version, is_pinned=True),
                "unpin": lambda plane: plane.admin.pin(name, version, is_pinned=False),
                "release": lambda plane: plane.admin.release(name, version),
            }
            order = chance.choice(list(admin))
            self.world.note(f"{order} {name}:{version}")
            await self.world.change(name, {}, admin[order])

    # Faults

    async def _disturb(self) -> None:
        faults_ = faults.Faults(self.world, self.chance)
        end_s = self.world.loop.time() + ACTIVE_S
        waiting: list[asyncio.Task[Any]] = []
        while self.world.loop.time() < end_s:
            await asyncio.sleep(self.chance.expovariate(0.25))
            waiting.append(tasks.spawn(faults_.happen(), "fault", is_awaited=True))
        self.is_over = True
        await asyncio.gather(*waiting)

    # The end

    async def _converge(self) -> None:
        """Return once every model answers as it should. Raises Wrong after CALM_S_MAX seconds."""
        world_ = self.world
        world_.cluster.start_failures = world_.cluster.refusals = 0
        world_.learn()
        end_s = world_.loop.time() + CALM_S_MAX
        left = [
            (name, version)
            for name, versions in sorted(world_.oracle.facts.items())
            for version in ("", *sorted(versions))
        ]
        problem = ""
        while left:
            if world_.loop.time() > end_s:
                raise oracle.Wrong(f"after {CALM_S_MAX:g} s still: {problem}")
            await asyncio.sleep(5.0)
            for name, version in tuple(left):
                outcome = await world_.ask(name, version, 5.0, 30.0)
                problem = self._problem(name, version, outcome)
                if not problem:
                    left.remove((name, version))

    def _problem(self, name: str, version: str, outcome: callers.Outcome) -> str:
        """Return what is not yet as it must be, or an empty text."""
        expected = self.world.oracle.expected(name, version)
        what = f"{name}:{version} was answered by {outcome}, and {expected} are declared"
        if not expected:
            return "" if outcome.code == oracle.NOT_FOUND else what
        known = self.world.oracle.contents
        if outcome.code == 0:
            # The last good version answers in place of one that is not.
            is_last_good = not all(known[number].is_good for number in expected)
            return "" if outcome.content in expected or is_last_good else what
        is_refusal = outcome.code in (oracle.LOAD_FAILED, oracle.RAISED)
        has_good = any(known[number].is_good for number in expected)
        return "" if is_refusal and not has_good else what
