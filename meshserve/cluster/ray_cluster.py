"""The control plane's port to Ray: workers and gateways as named actors."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray import exceptions
from ray.util import scheduling_strategies

from meshserve import errors
from meshserve.cluster import actors
from meshserve.core import control_ports, desired, events, model, replica, snapshot, tally
from meshserve.core import report as reports
from meshserve.worker import place

T = TypeVar("T")

NAMESPACE = "meshserve"
WORKER = "worker:"
GATEWAY = "gateway:"
CONTROLLER = "controller"
CALL_S = 10.0
START_S = 60.0
POLL_S = 0.05
STOP_S = actors.DRAIN_S + 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Makers:
    """How the parts are built inside their actors, and where. `host` is what workers listen on; empty: the address of their node."""

    worker: actors.WorkerMaker
    gateway: actors.GatewayMaker
    run_dir: str
    host: str = ""


class RayCluster:
    """Implements control_ports.Cluster."""

    def __init__(self, makers: Makers) -> None:
        self._makers = makers
        self._handles: dict[str, Any] = {}

    # Workers

    async def living_workers(self) -> tuple[events.LivingWorker, ...]:
        """The workers that run, whoever started them."""
        names = [name for name in await asyncio.to_thread(ray.util.list_named_actors) if name.startswith(WORKER)]
        found = await asyncio.gather(*(self._call(name, "living") for name in names), return_exceptions=True)
        return tuple(each for each in found if isinstance(each, events.LivingWorker))

    async def start_worker(self, worker_id: str, settings: desired.WorkerSettings) -> events.WorkerStarted:
        """Start its process, in place of any that is left of an earlier one; returns once it listens."""
        name = WORKER + worker_id
        await self._remove(name)
        where = place.Place(worker_id, self._makers.run_dir, "", self._makers.host or node_address())
        gpus = 1 if settings.device == "cuda" else 0
        options = {"num_cpus": 0, "num_gpus": gpus, "scheduling_strategy": "SPREAD", "max_restarts": 0}
        await self._create(name, actors.WorkerActor, options, self._makers.worker, where, settings)
        started: events.WorkerStarted = await self._call(name, "start", timeout_s=START_S)
        return started

    async def stop_worker(self, worker_id: str) -> None:
        """Let it answer what it has accepted, end it, and leave nothing behind."""
        await self._stop(WORKER + worker_id)

    async def wait_until_lost(self, worker_id: str) -> str:
        """Returns the reason once its process has ended in whatever way; at once where there is none."""
        try:
            handle = await self._handle(WORKER + worker_id)
            await handle.live.remote()
        except errors.Unavailable as error:
            return error.message
        except exceptions.RayError as error:
            return in_words(error)
        return "it ended"

    async def send_changes(self, worker_id: str, step: replica.Step) -> None:
        """Have it take a step of its catalog in."""
        await self._call(WORKER + worker_id, "send_changes", step)

    async def ensure_loaded(self, worker_id: str, id_: model.ModelId, timeout_s: float) -> None:
        """Returns once it has the model in memory."""
        await self._call(WORKER + worker_id, "ensure_loaded", id_, timeout_s, timeout_s=timeout_s + CALL_S)

    async def unload(self, worker_id: str, id_: model.ModelId) -> None:
        """Have its copy go as soon as nobody uses it."""
        await self._call(WORKER + worker_id, "unload", id_)

    async def pin(self, worker_id: str, id_: model.ModelId, *, is_pinned: bool) -> None:
        """Have it keep its copy from when it has one, or treat it like any other again."""
        await self._call(WORKER + worker_id, "pin", id_, is_pinned)

    async def copies(self, worker_id: str, ids: tuple[model.ModelId, ...]) -> tuple[reports.CopyReport, ...]:
        """How its copies of these models are now."""
        found: tuple[reports.CopyReport, ...] = await self._call(WORKER + worker_id, "copies", ids)
        return found

    async def report(self, worker_id: str) -> reports.WorkerReport:
        """How it is now."""
        found: reports.WorkerReport = await self._call(WORKER + worker_id, "report")
        return found

    async def tallies(self, worker_id: str) -> dict[model.ModelId, tally.ModelTally]:
        """What it has counted for each model since its process began."""
        found: dict[model.ModelId, tally.ModelTally] = await self._call(WORKER + worker_id, "tallies")
        return found

    # Gateways

    async def start_gateway(self, node: str, snap: snapshot.GatewaySnapshot) -> reports.GatewayReport:
        """Start it, or take over the one that runs and configure it; returns once it serves."""
        name = GATEWAY + node
        if not await self._exists(name):
            there = scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
            options = {"num_cpus": 0, "scheduling_strategy": there, "max_restarts": 0}
            await self._create(name, actors.GatewayActor, options, self._makers.gateway, self._makers.run_dir)
        started: reports.GatewayReport = await self._call(name, "start", snap, timeout_s=START_S)
        return started

    async def configure_gateway(self, node: str, snap: snapshot.GatewaySnapshot) -> None:
        """Have it serve by this snapshot; returns once it does."""
        await self._call(GATEWAY + node, "apply", snap, timeout_s=START_S)

    async def stop_gateway(self, node: str) -> None:
        """Let it answer what it has accepted, and end it."""
        await self._stop(GATEWAY + node)

    async def gateway_report(self, node: str) -> reports.GatewayReport:
        """How it is now."""
        found: reports.GatewayReport = await self._call(GATEWAY + node, "report")
        return found

    # The cluster

    async def capacity(self) -> control_ports.Capacity:
        """What there is for workers, all nodes together."""
        resources = await asyncio.to_thread(ray.cluster_resources)
        return control_ports.Capacity(int(resources.get("CPU", 1)), int(resources.get("GPU", 0)))

    async def nodes(self) -> tuple[str, ...]:
        """The nodes that shall have a gateway: all that live."""
        try:
            nodes = await asyncio.to_thread(ray.nodes)
        except exceptions.RayError as error:
            raise errors.Unavailable(f"Ray does not answer: {error}") from error
        return tuple(sorted(node["NodeID"] for node in nodes if node["Alive"]))

    # Actors

    async def _create(self, name: str, kind: type, options: dict[str, Any], *args: object) -> None:
        make: Any = ray.remote(kind).options(name=name, namespace=NAMESPACE, lifetime="detached", **options)
        try:
            self._handles[name] = await asyncio.to_thread(make.remote, *args)
        except (ValueError, exceptions.RayError) as error:
            raise errors.Unavailable(f"{name} can't be started: {error}") from error

    async def _call(self, name: str, method: str, *args: object, timeout_s: float = CALL_S) -> Any:
        """Call an actor's method. Raises its own errors, and Unavailable where it is gone or does not answer."""
        handle = await self._handle(name)
        try:
            async with asyncio.timeout(timeout_s):
                result = await getattr(handle, method).remote(*args)
        except exceptions.RayTaskError as error:
            # It may pass for a TimeoutError of ours: it is of its cause's class as well.
            raise errors.Unavailable(f"{name}: {in_words(error)}") from None
        except TimeoutError:
            raise errors.Unavailable(f"{name} does not answer within {timeout_s:g} s") from None
        except exceptions.RayActorError as error:
            self._handles.pop(name, None)
            raise errors.Unavailable(f"{name} is gone: {in_words(error)}") from None
        except exceptions.RayError as error:
            raise errors.Unavailable(f"{name}: {in_words(error)}") from None
        if isinstance(result, errors.MeshError):
            raise result
        return result

    async def _handle(self, name: str) -> Any:
        handle = self._handles.get(name)
        if handle is None:
            try:
                handle = await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
            except ValueError:
                raise errors.Unavailable(f"{name} is not there") from None
            self._handles[name] = handle
        return handle

    async def _exists(self, name: str) -> bool:
        try:
            await self._handle(name)
        except errors.Unavailable:
            return False
        return True

    async def _stop(self, name: str) -> None:
        if not await self._exists(name):
            return
        try:
            await self._call(name, "stop", timeout_s=STOP_S)
        except errors.Unavailable as error:
            logger.warning("%s did not stop in good order: %s", name, error.message)
        await self._remove(name)

    async def _remove(self, name: str) -> None:
        """End what is left of an actor, so that its name is free."""
        if not await self._exists(name):
            return
        handle = self._handles.pop(name)
        await asyncio.to_thread(ray.kill, handle)
        try:
            async with asyncio.timeout(CALL_S):
                while name in await asyncio.to_thread(ray.util.list_named_actors):
                    self._handles.pop(name, None)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise errors.Unavailable(f"{name} has not ended within {CALL_S:g} s") from None


def in_words(error: exceptions.RayError) -> str:
    """What happened, in one line: Ray's own words have colours and tracebacks in them."""
    if isinstance(error, exceptions.RayTaskError) and error.cause is not None:
        return f"{type(error.cause).__name__}: {error.cause}"
    first, *rest = str(error).strip().splitlines() or [type(error).__name__]
    return rest[-1] if rest and "creation task" in first else first


def node_address() -> str:
    """The address under which other nodes reach this one."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
