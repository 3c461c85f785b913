"""One seed: a mesh in simulated time, its users, its faults, and what must hold."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import orjson

from meshserve import errors
from meshserve.control import control_plane
from meshserve.core.values import model
from meshserve.testing import fake_store
from tests.simulation import callers, cluster, contents, oracle, registries, simulated_loop

ENDPOINT = model.Endpoint(cluster.NODE, "127.0.0.1", 7000, "/run/controller.sock")
MIB = 1 << 20
T = TypeVar("T")


class LoopClock:
    """The controller's clock, by its event loop."""

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class World:
    """The parts of a simulation. `trace` has all that happened, in words."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.folder = folder
        self.trace: list[str] = []
        self.oracle = oracle.Oracle()
        self.repository = contents.Repository()
        self.loop = simulated_loop.SimulatedLoop(random.Random(seed + 1), self.look)
        self.requests = 0
        self.numbers = 0
        self.plane: control_plane.ControlPlane | None = None
        self.controller: simulated_loop.SimulatedProcess | None = None
        self.restarts = 0
        self.document: dict[str, Any] = {}
        self._looked_at: dict[int, int] = {}
        self._handled = 0

    def open(self) -> None:
        """Make what needs the event loop; called within it."""
        run_dir = f"/simulated/{self.folder.name}"
        self.cluster = cluster.SimulatedCluster(
            self.repository, random.Random(self.seed + 2), run_dir
        )
        self.envoy = callers.Envoy(self.cluster, random.Random(self.seed + 3))
        self.registry = registries.SlowRegistry(self.folder / "registry.db")
        self.watch = fake_store.FakeWatch()

    def close(self) -> None:
        """Remove the files of the simulation."""
        self.registry.close()
        for record in [*self.cluster.ended, *self.cluster.workers.values()]:
            if record.worker is not None and record.worker.journal_folder is not None:
                shutil.rmtree(record.worker.journal_folder, ignore_errors=True)
                return

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.loop.time():9.3f} {text}")

    # The controller

    async def start_controller(self) -> None:
        """Start the controller's process, for the first time with the configuration."""
        process = simulated_loop.SimulatedProcess("controller", self.cluster.next_pid())
        self.controller = process
        document = "" if self.restarts else orjson.dumps(self.document).decode()
        started = self.loop.begin(process, self._run_controller(document))
        await asyncio.wait({started})
        started.result()

    async def _run_controller(self, document: str) -> None:
        parts = control_plane.ControlPlaneParts(
            self.cluster,
            self.registry,
            self.watch,
            str(self.folder),
            LoopClock(),
        )
        plane = control_plane.ControlPlane(parts, self.restarts)
        self._handled = 0
        await plane.start(ENDPOINT, document)
        self.plane = plane
        self.note(f"controller {self.restarts} runs")

    async def restart_controller(self, after_s: float) -> None:
        """Kill the controller, and start it again."""
        assert self.controller is not None
        self.note("the controller is killed")
        self.plane = None
        self.controller.end("SIGKILL")
        self.restarts += 1
        await asyncio.sleep(after_s)
        while self.plane is None:
            try:
                await self.start_controller()
            except errors.MeshError as error:
                self.note(f"the controller can't start: {error.message}")
                await asyncio.sleep(2.0)
        self.learn()

    async def admin(self, call: Callable[[control_plane.ControlPlane], Awaitable[T]]) -> T:
        """Have the controller do something. Raises Unavailable if it dies meanwhile."""
        plane, process = self.plane, self.controller
        if plane is None or process is None:
            raise errors.Unavailable("there is no controller")
        answer: asyncio.Future[Any] = self.loop.create_future()
        lost: asyncio.Future[Any] = self.loop.create_future()
        process.on_end.append(lost.set_result)

        async def perform() -> None:
            try:
                answer.set_result(await call(plane))
            except errors.MeshError as error:
                answer.set_exception(error)

        self.loop.begin(process, perform())
        await asyncio.wait([answer, lost], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise errors.Unavailable("the controller has died")
        return cast("T", answer.result())

    # Changes

    def new_content(self, **fields: Any) -> contents.Content:
        """Return a content that no model has had, at a URI of its own."""
        self.numbers += 1
        content = contents.Content(self.numbers, **fields)
        self.repository.put(self.uri(content), content)
        self.oracle.contents[content.number] = content
        return content

    @staticmethod
    def uri(content: contents.Content) -> str:
        return f"file:///models/{content.number}"

    def spec(self, name: str, version: str, content: contents.Content) -> model.ModelSpec:
        return model.ModelSpec(
            model.ModelId(name, version),
            self.uri(content),
            runtime=contents.RUNTIME,
            load_timeout_s=10.0,
        )

    async def change(
        self,
        name: str,
        numbers: dict[str, int],
        call: Callable[[control_plane.ControlPlane], Awaitable[Any]],
    ) -> bool:
        """Make a change that gives each version a content's number; return whether it was done."""
        begun_s = self.loop.time()
        for version, number in numbers.items():
            self.oracle.begin_change(name, version, number)
        try:
            await self.admin(call)
        except errors.MeshError as error:
            is_done = False
            self.note(f"{name} {numbers}: {type(error).__name__}: {error.message[:90]}")
            await self._until_known(error)
            for version in numbers:
                self.oracle.delay(name, version, self.loop.time())
        else:
            is_done = True
            self.note(f"{name} {numbers}: done")
            # Loads wait for no catalog.
            if numbers:
                self.oracle.acknowledge(begun_s)
        for version, number in numbers.items():
            self.oracle.end_change(name, version)
            declared = self.declared(name, version)
            is_alone = not self.oracle.fact(name, version).open
            if is_done and is_alone and declared not in (None, number):
                raise oracle.Wrong(f"{name}:{version} has {declared} after {number} was told")
        self.learn()
        return is_done

    async def _until_known(self, error: errors.MeshError) -> None:
        """Return when the registry has told whether what failed so is saved, or at the end."""
        plane = self.plane
        while "may have saved" in error.message and plane is not None and plane is self.plane:
            if not plane.controller._mesh.admin_queue._stalled:
                return
            await asyncio.sleep(0.1)

    def declared(self, name: str, version: str) -> int | None:
        """Return the number of the declared content; None without a controller to say it."""
        if self.plane is None:
            return None
        known = self.plane.controller.view().models.declared(model.ModelId(name, version))
        return oracle.ABSENT if known is None else self.number(known.spec)

    @staticmethod
    def number(spec: model.ModelSpec) -> int:
        """Return the number of the content that a model is declared with."""
        return int(spec.uri.rpartition("/")[2])

    def learn(self) -> None:
        """Tell the oracle what is declared, where it can't know that."""
        for name, versions in self.oracle.facts.items():
            for version, fact in versions.items():
                if fact.open or len(fact.possible) == 1:
                    continue
                number = self.declared(name, version)
                if number is not None:
                    self.oracle.settle(name, version, number)

    # Requests

    async def ask(self, name: str, version: str, value: float, timeout_s: float) -> callers.Outcome:
        """Make a request, and have the oracle judge its outcome."""
        self.requests += 1
        request = oracle.Request(name, version, value, self.loop.time())
        self.oracle.begin_request(request)
        outcome = await self.envoy.infer(name, version, value, timeout_s)
        now_s = self.loop.time()
        if now_s - request.sent_s > timeout_s + 1.0:
            raise oracle.Wrong(f"{request} was answered {now_s - request.sent_s:.1f} s later")
        what = outcome.content if not outcome.code else f"{outcome.code} {outcome.message[:80]}"
        self.note(f"{name}:{version} {value:g} after {now_s - request.sent_s:.3f} s: {what}")
        self.oracle.judge(request, outcome, now_s)
        return outcome

    # What must hold at every moment

    def look(self) -> None:
        """Assert the invariants of all that has just run."""
        if self.loop.failures:
            raise oracle.Wrong(self.loop.failures[0])
        for record in self.cluster.workers.values():
            if record.worker is None or not record.process.is_alive:
                continue
            pid = record.process.pid
            if self._looked_at.get(pid) != record.process.callbacks:
                self._looked_at[pid] = record.process.callbacks
                record.worker.host.residency.check()
        if self.plane is not None:
            controller = self.plane.controller
            if controller.events_handled != self._handled:
                self._handled = controller.events_handled
                controller._mesh.check()
            if controller.failures:
                raise oracle.Wrong("the controller could not handle an event")

    def figures(self) -> dict[str, int]:
        """Return how much was simulated."""
        handled = self.plane.controller.events_handled if self.plane else 0
        return {
            "simulated seconds": int(self.loop.time()),
            "callbacks": self.loop.callbacks,
            "requests": self.requests,
            "contents": self.numbers,
            "restarts of the controller": self.restarts,
            "processes of workers": len(self.cluster.ended) + len(self.cluster.workers),
            "events of the last controllers": handled,
            **self.oracle.outcomes,
        }
