"""The actors: each holds one part built by the composition root and passes control calls on to it. Errors of ours travel as values."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import ray

from meshserve import errors
from meshserve.core.values import (
    catalog_sync,
    desired,
    events,
    model,
    model_stats,
    reports,
    snapshots,
)
from meshserve.gateway import gateway
from meshserve.gateway.envoy import envoy_process
from meshserve.worker import worker

P = ParamSpec("P")
T = TypeVar("T")

BEGIN_POLL_S = 0.01
DRAIN_S = 30.0

WorkerMaker = Callable[[model.ServerAddress, desired.WorkerSettings], worker.PoolWorker]
GatewayMaker = Callable[[str], gateway.NodeGateway]


def told(
    method: Callable[P, Awaitable[T]],
) -> Callable[P, Coroutine[Any, Any, T | errors.MeshError]]:
    """The method with errors of ours as its result: Ray would wrap what is raised beyond recognition."""

    @functools.wraps(method)
    async def telling(*args: P.args, **kwargs: P.kwargs) -> T | errors.MeshError:
        try:
            return await method(*args, **kwargs)
        except errors.MeshError as error:
            return error

    return telling


def node_id() -> str:
    """This process's node, as Ray names it."""
    return str(ray.get_runtime_context().get_node_id())


class WorkerActor:
    """Holds one pool worker."""

    def __init__(
        self,
        make: WorkerMaker,
        address: model.ServerAddress,
        settings: desired.WorkerSettings,
    ) -> None:
        self._make = make
        self._address = dataclasses.replace(address, node=node_id())
        self._settings = settings
        self._endpoint: model.Endpoint | None = None
        self._worker: worker.PoolWorker | None = None

    @property
    def _held(self) -> worker.PoolWorker:
        if self._worker is None:
            raise errors.Unavailable(f"worker {self._address.id} is not started")
        return self._worker

    @told
    async def start(self) -> events.WorkerStarted:
        """Listen; returns where."""
        make_run_dir(self._address.run_dir)
        self._worker = self._make(self._address, self._settings)
        self._endpoint = await self._worker.start()
        return events.WorkerStarted(self._address.id, self._endpoint, os.getpid())

    @told
    async def living(self) -> events.LivingWorker:
        """What a controller that begins must know of it."""
        if self._endpoint is None:
            raise errors.Unavailable(f"worker {self._address.id} is not started")
        is_ready = self._held.app.is_synced and not self._held.app.is_draining
        return events.LivingWorker(
            self._address.id, self._settings, self._endpoint, os.getpid(), is_ready
        )

    async def live(self) -> None:
        """Never returns: whoever waits for it hears at once when the process ends."""
        await asyncio.Event().wait()

    @told
    async def send_changes(self, step: catalog_sync.SyncStep) -> None:
        """Take a step of the catalog in."""
        self._held.apply(step)

    @told
    async def ensure_loaded(self, id_: model.ModelId, timeout_s: float) -> None:
        """Return once the model is in memory."""
        await self._held.ensure_loaded(id_, timeout_s)

    @told
    async def unload(self, id_: model.ModelId) -> None:
        """Have its copy go."""
        self._held.host.unload(id_)

    @told
    async def pin(self, id_: model.ModelId, is_pinned: bool) -> None:
        """Keep its copy, or no longer."""
        self._held.host.set_pinned(id_, is_pinned)

    @told
    async def copies(self, ids: tuple[model.ModelId, ...]) -> tuple[reports.CopyReport, ...]:
        """How its copies of these are."""
        return self._held.copies(ids)

    @told
    async def report(self, since: int) -> reports.WorkerReport:
        """How it is, and what has changed of its copies since that report."""
        return self._held.report(since)

    @told
    async def tallies(self) -> dict[model.ModelId, model_stats.ModelStats]:
        """What it has counted for each model."""
        return dict(self._held.host.tallies)

    @told
    async def stop(self) -> None:
        """Answer what was accepted, and end."""
        if self._worker is not None:
            await self._worker.drain(DRAIN_S)
            await self._worker.stop()


class GatewayActor:
    """Holds one node's gateway."""

    def __init__(self, make: GatewayMaker, run_dir: str) -> None:
        make_run_dir(run_dir)
        self._gateway = make(run_dir)
        self._node = node_id()
        self._is_started = False

    @told
    async def start(self, snap: snapshots.GatewaySnapshot) -> reports.GatewayReport:
        """Serve by the snapshot; one that serves already only follows it."""
        if self._is_started:
            await _in_words(self._gateway.apply(snap))
        else:
            await _in_words(self._gateway.start(snap))
            self._is_started = True
        return self._report()

    @told
    async def apply(self, snap: snapshots.GatewaySnapshot) -> None:
        """Serve by the snapshot from now on."""
        await _in_words(self._gateway.apply(snap))

    @told
    async def report(self) -> reports.GatewayReport:
        """How it is."""
        return self._report()

    @told
    async def stop(self) -> None:
        """Answer what was accepted, and end."""
        await self._gateway.drain(DRAIN_S)
        await self._gateway.stop()

    def _report(self) -> reports.GatewayReport:
        now: dict[str, Any] = self._gateway.report()
        return reports.GatewayReport(
            node=self._node,
            pid=now["pid"],
            envoy_pid=now["envoy_pid"] or 0,
            state=now["state"],
            listen=now["listen"],
            restarts=now["restarts"],
        )


async def _in_words(work: Awaitable[None]) -> None:
    """What a gateway does, with its own errors and the system's as ours."""
    try:
        await work
    except (OSError, envoy_process.EnvoyFailed) as error:
        raise errors.Unavailable(f"the gateway: {error}") from error


class HostedController(Protocol):
    """What a controller's actor holds: it runs until it is drained, on a loop of its own."""

    async def run(self) -> None:
        """Begin, and serve until drained, whoever asks for that."""
        ...

    async def status(self) -> dict[str, Any]:
        """How the mesh is, as /mesh/v1/status tells it."""
        ...

    async def drain(self) -> None:
        """End the mesh in good order; returns when all of it has ended."""
        ...


class ControllerActor:
    """Holds the controller. It begins by itself, so that Ray's restart of a killed one is all that it takes to come back.

    It ends by itself too, once what it holds was drained.
    """

    def __init__(self, make: Callable[[], HostedController]) -> None:
        self._held: HostedController | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="controller", daemon=True).start()
        self._running = asyncio.run_coroutine_threadsafe(self._run(make), self._loop)

    async def _run(self, make: Callable[[], HostedController]) -> None:
        self._held = make()
        await self._held.run()
        end_this_actor()

    @told
    async def status(self) -> dict[str, Any]:
        """How the mesh is, once the controller has begun. Raises what kept it from that."""
        while self._held is None and not self._running.done():  # noqa: ASYNC110 - another thread makes it
            await asyncio.sleep(BEGIN_POLL_S)
        if self._held is None or self._running.done():
            self._raise_failure()
            raise errors.Unavailable("the controller has ended")
        return await self._on_its_loop(self._held.status())

    @told
    async def drain(self) -> None:
        """End the mesh in good order. One that could not begin has nothing to end."""
        if self._held is not None and not self._running.done():
            await self._on_its_loop(self._held.drain())

    def _raise_failure(self) -> None:
        failure = self._running.exception()
        if failure is not None and not isinstance(failure, errors.MeshError):
            raise errors.MeshError(f"the controller could not begin: {failure!r}") from failure
        self._running.result()

    async def _on_its_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


def end_this_actor() -> None:
    """End this process, which is an actor's, and have it not begun again."""
    ray.kill(ray.get_runtime_context().current_actor)


def make_run_dir(run_dir: str) -> None:
    """The folder of sockets on this node, for nobody else to look into."""
    Path(run_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
