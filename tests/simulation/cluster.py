"""A cluster in simulated time: processes of workers, calls to them that are late or lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from meshserve import errors, tasks
from meshserve.cluster import actor_process, named_actors, ray_cluster
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import (
    catalog_sync,
    desired,
    events,
    model,
    model_stats,
    nodes,
    reports,
    snapshots,
)
from meshserve.testing import fake_replicas
from tests.simulation import contents, simulated_loop, workers

NODE = "n1"
T = TypeVar("T")
Call = Callable[[workers.SimulatedWorker], Coroutine[Any, Any, T]]


class WorkerProcess:
    """One process of a worker; `worker` is set once it was told to start.

    One that `is_cut_off` gets and answers no messages.
    """

    def __init__(self, worker_id: str, process: simulated_loop.SimulatedProcess) -> None:
        self.id = worker_id
        self.process = process
        self.worker: workers.SimulatedWorker | None = None
        self.is_cut_off = False
        self.arrival_s = 0.0
        self.lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        process.on_end.append(self._end)

    def _end(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason or "it ended")


class SimulatedCluster(fake_replicas.FakeReplicas):
    """Implements `cluster_control.Cluster` with the real workers.

    `latency_s` is the longest time of a message. The next `start_failures` starts of workers fail,
    and gateways refuse the next `refusals` configurations.
    """

    def __init__(
        self, repository: contents.Repository, chance: random.Random, run_dir: str
    ) -> None:
        super().__init__([])
        self.workers: dict[str, WorkerProcess] = {}
        self.ended: list[WorkerProcess] = []
        self.gateways: dict[str, snapshots.GatewaySnapshot] = {}
        self.latency_s = 0.002
        self.start_failures = 0
        self.refusals = 0
        self._repository = repository
        self._chance = chance
        self._run_dir = run_dir
        self._pids = itertools.count(1 << 23)
        self._gateway_lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def next_pid(self) -> int:
        """Return a pid that no process of this machine has."""
        return next(self._pids)

    def kill(self, worker_id: str, reason: str = "SIGKILL") -> None:
        """End a worker's process."""
        record = self.workers.pop(worker_id, None)
        if record is not None:
            self.ended.append(record)
            record.process.end(reason)

    # Messages

    async def _travel(self) -> None:
        await asyncio.sleep(self._chance.random() * self.latency_s)

    async def call(
        self, worker_id: str, call: Call[T], timeout_s: float = named_actors.CALL_S
    ) -> T:
        """Have the worker's process do something, as a call to an actor does."""
        record = self.workers.get(worker_id)
        if record is None or not record.process.is_alive:
            raise errors.Unavailable(f"there is no worker {worker_id}")
        loop = simulated_loop.current()
        # Calls of one caller arrive in their order.
        record.arrival_s = max(
            record.arrival_s, loop.time() + self._chance.random() * self.latency_s
        )
        answer: asyncio.Future[Any] = loop.create_future()
        context = record.process.context()
        loop.call_at(record.arrival_s, self._perform, record, call, answer, context=context)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait([answer, record.lost], return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise errors.Unavailable(
                f"{worker_id} does not answer within {timeout_s:g} s"
            ) from None
        await self._travel()
        if not answer.done():
            raise errors.Unavailable(f"{worker_id} is gone: {record.lost.result()}")
        return cast("T", answer.result())

    def _perform(self, record: WorkerProcess, call: Call[T], answer: asyncio.Future[Any]) -> None:
        if record.is_cut_off:
            return

        async def perform() -> None:
            try:
                if record.worker is None:
                    raise errors.Unavailable(f"worker {record.id} is not started")
                result = await call(record.worker)
            except errors.MeshError as error:
                if not (answer.done() or record.is_cut_off):
                    answer.set_exception(error)
            else:
                if not (answer.done() or record.is_cut_off):
                    answer.set_result(result)

        tasks.spawn(perform(), f"call to {record.id}")

    # Workers

    async def capacity(self) -> cluster_control.WorkerCapacity:
        return cluster_control.WorkerCapacity(2, 0)

    async def nodes(self) -> tuple[nodes.ClusterNode, ...]:
        await self._travel()
        return (nodes.ClusterNode(NODE),)

    async def end_node(self, node: str) -> None:
        raise errors.Unavailable(f"{node} is the only one")

    async def living_workers(self) -> tuple[events.LivingWorker, ...]:
        async def living(worker: workers.SimulatedWorker) -> events.LivingWorker:
            return worker.living()

        answers = await asyncio.gather(
            *(self.call(id_, living) for id_ in sorted(self.workers)), return_exceptions=True
        )
        return tuple(answer for answer in answers if isinstance(answer, events.LivingWorker))

    async def start_worker(
        self,
        worker_id: str,
        settings: desired.WorkerSettings,
        avoided: frozenset[str] = frozenset(),  # noqa: ARG002 - there is one node
    ) -> events.WorkerStarted:
        self.kill(worker_id)
        await asyncio.sleep(self._chance.uniform(0.2, 2.0))
        if self.start_failures > 0:
            self.start_failures -= 1
            raise errors.Unavailable(f"worker {worker_id} can't be started")
        # Another controller may have started it meanwhile.
        self.kill(worker_id)
        process = simulated_loop.SimulatedProcess(worker_id, self.next_pid())
        record = self.workers[worker_id] = WorkerProcess(worker_id, process)
        process.context().run(self._make, record, settings)

        async def start(worker: workers.SimulatedWorker) -> events.WorkerStarted:
            return events.WorkerStarted(worker_id, await worker.start(), process.pid)

        return await self.call(worker_id, start, ray_cluster.START_S)

    def _make(self, record: WorkerProcess, settings: desired.WorkerSettings) -> None:
        address = model.ServerAddress(record.id, self._run_dir, NODE)
        storage = contents.SimulatedStorage(self._repository, self._chance)
        record.worker = workers.SimulatedWorker(address, settings, storage, self.next_pid)

    async def stop_worker(self, worker_id: str) -> None:
        async def stop(worker: workers.SimulatedWorker) -> None:
            await worker.drain(actor_process.DRAIN_S)
            await worker.stop()

        with contextlib.suppress(errors.Unavailable):
            await self.call(worker_id, stop, ray_cluster.STOP_S)
        self.kill(worker_id)

    async def wait_until_lost(self, worker_id: str) -> str:
        record = self.workers.get(worker_id)
        if record is None:
            return "there is none"
        reason = str(await asyncio.shield(record.lost))
        await asyncio.sleep(self._chance.random() * 0.5)
        return reason

    async def send_changes(self, worker_id: str, step: catalog_sync.SyncStep) -> None:
        async def send(worker: workers.SimulatedWorker) -> None:
            worker.apply(step)

        await self.call(worker_id, send)

    async def ensure_loaded(self, worker_id: str, id_: model.ModelId, timeout_s: float) -> None:
        async def ensure(worker: workers.SimulatedWorker) -> None:
            await worker.ensure_loaded(id_, timeout_s)

        await self.call(worker_id, ensure, timeout_s + named_actors.CALL_S)

    async def unload(self, worker_id: str, id_: model.ModelId) -> None:
        async def unload(worker: workers.SimulatedWorker) -> None:
            worker.host.unload(id_)

        await self.call(worker_id, unload)

    async def pin(self, worker_id: str, id_: model.ModelId, *, is_pinned: bool) -> None:
        async def pin(worker: workers.SimulatedWorker) -> None:
            worker.host.set_pinned(id_, is_pinned)

        await self.call(worker_id, pin)

    async def copies(
        self, worker_id: str, ids: tuple[model.ModelId, ...]
    ) -> tuple[reports.CopyReport, ...]:
        async def copies(worker: workers.SimulatedWorker) -> tuple[reports.CopyReport, ...]:
            return worker.copies(ids)

        return await self.call(worker_id, copies)

    async def stats(self, worker_id: str) -> dict[model.ModelId, model_stats.ModelStats]:
        async def stats(
            worker: workers.SimulatedWorker,
        ) -> dict[model.ModelId, model_stats.ModelStats]:
            return dict(worker.stats())

        return await self.call(worker_id, stats)

    async def report(self, worker_id: str, since: int) -> reports.WorkerReport:
        async def report(worker: workers.SimulatedWorker) -> reports.WorkerReport:
            return worker.report(since)

        return await self.call(worker_id, report)

    # Gateways

    async def start_gateway(
        self, node: str, snapshot: snapshots.GatewaySnapshot
    ) -> reports.GatewayReport:
        await asyncio.sleep(self._chance.uniform(0.05, 0.5))
        self.gateways[node] = snapshot
        if self._gateway_lost.done():
            self._gateway_lost = asyncio.get_running_loop().create_future()
        return await self.gateway_report(node)

    async def configure_gateway(self, node: str, snapshot: snapshots.GatewaySnapshot) -> None:
        await self._travel()
        if node not in self.gateways:
            raise errors.Unavailable(f"there is no gateway on {node}")
        if self.refusals > 0:
            self.refusals -= 1
            raise errors.MeshError("Envoy did not take it")
        self.gateways[node] = snapshot
        await self._travel()

    async def stop_gateway(self, node: str) -> None:  # noqa: ARG002 there is one
        await self._travel()
        self.kill_gateway()

    async def wait_until_gateway_lost(self, node: str) -> str:
        if node not in self.gateways:
            return "there is none"
        reason = str(await asyncio.shield(self._gateway_lost))
        await asyncio.sleep(self._chance.random() * 0.5)
        return reason

    def kill_gateway(self) -> None:
        """End the node's gateway."""
        if self.gateways.pop(NODE, None) is not None:
            self._gateway_lost.set_result("SIGKILL")

    async def gateway_report(self, node: str) -> reports.GatewayReport:
        await self._travel()
        if node not in self.gateways:
            raise errors.Unavailable(f"there is no gateway on {node}")
        return reports.GatewayReport(node, 1, 2, "ready", self.gateways[node].listen)
