"""The one writer: events come in by a queue, the mesh decides, the registry keeps what must last, and hands perform the rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from meshserve import errors, tasks
from meshserve.config import desired_state
from meshserve.control import effects, monitor
from meshserve.control.api import hold_endpoint
from meshserve.core.interfaces import cluster_control as ports
from meshserve.core.mesh import mesh
from meshserve.core.values import commands, desired, events, model, model_stats, reports, snapshots

TICK_S = 0.5
NODES_EVERY_S = 2.0

T = TypeVar("T")
Words = tuple[str, ...]
logger = logging.getLogger(__name__)


class QueuedEvent(NamedTuple):
    """An event, and who waits for it to be done."""

    event: events.Event
    done: asyncio.Future[Words] | None


class Controller:
    """Runs on one event loop. A wish is acknowledged when it is in the registry."""

    def __init__(
        self,
        cluster: ports.Cluster,
        store: ports.RegistryStore,
        clock: ports.Clock,
        restarts: int = 0,
    ) -> None:
        self.mesh = mesh.Mesh()
        self.cluster = cluster
        self.restarts = restarts
        self.events_handled = 0
        self._store = store
        self._clock = clock
        self._queue: asyncio.Queue[QueuedEvent] = asyncio.Queue()
        self._hands = effects.Effects(cluster, clock, self)
        self.waiting_room = hold_endpoint.HoldEndpoint(self.post)
        self._watching = monitor.Monitor(cluster, clock, self)
        self._tasks: list[asyncio.Task[None]] = []
        self._store_thread = ThreadPoolExecutor(1, "registry")
        self._drained = asyncio.Event()

    async def start(
        self,
        endpoint: model.Endpoint,
        wanted: desired.Desired | None,
        contents: events.RegistryContents,
    ) -> Words:
        """Begin with what the registry holds and what runs already, and bring `wanted` about; returns what that changes.

        Without `wanted`, what the registry's configuration says holds. Raises what is wrong with it; nothing is started then.
        """
        last = desired_state.from_registry(
            contents, await self.cluster.capacity(), is_needed=wanted is None
        )
        living, replicas = await self.cluster.living_workers(), await self.cluster.living_replicas()
        changes = (last, *contents.changes)
        await self._handle(
            events.Restored(
                changes, living, endpoint, is_config_coming=wanted is not None, replicas=replicas
            )
        )
        for worker in living:
            self._watching.watch_worker(worker.worker_id, worker.pid)
        for replica in replicas:
            self._watching.watch_replica(replica.replica_id, replica.pid)
        words = await self._handle(events.ConfigApplied(wanted)) if wanted is not None else ()
        self._tasks = [
            tasks.spawn(work, name)
            for name, work in (
                ("events", self._run()),
                ("tick", self._tick()),
                ("nodes", self._see_nodes()),
                ("room", self._see_room()),
            )
        ]
        return words

    async def close(self) -> None:
        """Let go of everything; what runs in the cluster goes on."""
        self._hands.close()
        self._watching.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._store_thread.shutdown()

    def post(self, event: events.Event) -> None:
        """Take an event in."""
        self._queue.put_nowait(QueuedEvent(event, None))

    async def submit(self, wish: events.Event) -> Words:
        """Take a wish in; returns what it changed, once that is durable. Raises what is wrong with it."""
        done: asyncio.Future[Words] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(QueuedEvent(wish, done))
        return await done

    async def wait_until_settled(self) -> None:
        """Return when workers and gateways know what was submitted, or after a few seconds."""
        await self._hands.wait_until_settled()

    async def wait_until_drained(self) -> None:
        """Return when a DrainRequested has ended everything."""
        await self._drained.wait()

    def gateway_snapshot(self, node: str) -> snapshots.GatewaySnapshot:
        """What the node's gateway is to be configured from, now."""
        return self.mesh.gateway_snapshot(node)

    def synced(self, worker_id: str) -> int:
        """The revision that the worker is known to have."""
        worker = self.mesh.workers.records.get(worker_id)
        return worker.synced if worker else 0

    def reported(self, worker_id: str) -> int:
        """The number of the worker's last report that was taken in; 0 where there was none."""
        worker = self.mesh.workers.records.get(worker_id)
        return worker.report.number if worker and worker.report else 0

    async def _run(self) -> None:
        while True:
            item = await self._queue.get()
            try:
                words = await self._handle(item.event)
            except errors.MeshError as error:
                self._refuse(item, error)
            except Exception as error:
                # One event that we can't handle must not end the only task that handles any.
                logger.exception("%s could not be handled", type(item.event).__name__)
                self._refuse(item, errors.MeshError(f"the controller failed: {error!r}"))
            else:
                if item.done is not None and not item.done.done():
                    item.done.set_result(words)

    def _refuse(self, item: QueuedEvent, error: errors.MeshError) -> None:
        if item.done is None:
            logger.warning("%s: %s", type(item.event).__name__, error.message)
        elif not item.done.done():
            item.done.set_exception(error)

    async def _handle(self, event: events.Event) -> Words:
        self._note(event)
        words = await self._perform(self.mesh.handle(event, self._clock.now_s()))
        self.events_handled += 1
        if self.mesh.is_drained:
            self._drained.set()
        return words

    def _note(self, event: events.Event) -> None:
        match event:
            case events.WorkerLost() | events.WorkerStopped():
                self._note_end(event)
            case events.WorkerStarted():
                self._watching.watch_worker(event.worker_id, event.pid)
            case events.GatewayReported():
                self._watching.watch_gateway(event.report.node)
            case events.GatewayLost() | events.GatewayStopped():
                self._watching.forget_gateway(event.node)
            case events.ReplicaReady():
                self._watching.watch_replica(event.replica_id, event.pid)
            case events.ReplicaStopped():
                self._watching.forget_replica(event.replica_id)
            case events.ReplicaLost():
                self._note_lost_replica(event)

    def _note_lost_replica(self, event: events.ReplicaLost) -> None:
        replica = self.mesh.llms.fleet.replica(event.replica_id)
        if replica is not None and event.pid in (0, replica.pid):
            logger.warning("replica %s is lost: %s", event.replica_id, event.reason)
            self._watching.forget_replica(event.replica_id)

    def _note_end(self, event: events.WorkerLost | events.WorkerStopped) -> None:
        worker = self.mesh.workers.records.get(event.worker_id)
        if worker is None:
            return
        if worker.state == "draining":
            self._watching.forget_worker(event.worker_id)
        elif isinstance(event, events.WorkerLost) and event.pid in (0, worker.pid):
            logger.warning("worker %s is lost: %s", event.worker_id, event.reason)
            self._watching.forget_worker(event.worker_id)
            self._hands.forget_worker(event.worker_id)

    async def _perform(self, asked: Sequence[commands.Command]) -> Words:
        for command in asked:
            if isinstance(command, commands.HeldCommand):
                self.waiting_room.perform(command)
            elif not isinstance(command, commands.SaveChanges | commands.RememberMeasured):
                self._hands.perform(command)
        words: list[str] = []
        for command in asked:
            if isinstance(command, commands.SaveChanges):
                await self._save(command)
                words += command.words
            elif isinstance(command, commands.RememberMeasured):
                await self._remember(command.learned)
        return tuple(words)

    async def _remember(self, learned: tuple[reports.LearnedMeasurement, ...]) -> None:
        try:
            await self._in_store(lambda: self._store.remember(learned))
        except errors.MeshError as error:
            logger.warning("what was measured is not kept: %s", error.message)

    async def _save(self, save: commands.SaveChanges) -> None:
        if save.changes:
            await self._in_store(lambda: self._store.save(save.changes))
            await self._perform(
                self.mesh.handle(events.ChangesSaved(save.changes), self._clock.now_s())
            )

    async def _in_store(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._store_thread, call)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            self.post(events.Ticked())

    async def _see_nodes(self) -> None:
        seen: tuple[str, ...] = ()
        while True:
            nodes = await self._nodes(seen)
            if nodes != seen:
                seen = nodes
                self.post(events.NodesSeen(nodes))
            await self._clock.sleep(NODES_EVERY_S)

    async def _see_room(self) -> None:
        while True:
            if self.mesh.llms.llms:
                await self._tell_room()
            await self._clock.sleep(NODES_EVERY_S)

    async def _tell_room(self) -> None:
        try:
            self.post(events.CapacitySeen(await self.cluster.node_capacities()))
        except errors.MeshError as error:
            logger.warning("what the nodes have for LLMs can't be told: %s", error.message)

    async def _nodes(self, seen: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return await self.cluster.nodes()
        except errors.MeshError as error:
            logger.warning("the nodes can't be told: %s", error.message)
            return seen

    async def ensure_loaded(
        self, name: str, version: str, timeout_s: float | None
    ) -> model.ModelId:
        """Have the model loaded where requests for `name` go; returns which it was. Raises why it can't be."""
        id_ = self.mesh.catalog.models.resolve(name, version)
        declared = self.mesh.catalog.models.declared(id_)
        home = self.mesh.home(name)
        if home is None or declared is None:
            raise errors.Unavailable(
                f"no worker is ready to load model {name!r}", retry_after_s=1.0
            )
        try:
            await self.cluster.ensure_loaded(home, id_, timeout_s or declared.spec.load_timeout_s)
        finally:
            await self.copies(id_)
        return id_

    async def unload(self, name: str, version: str) -> model.ModelId:
        """Have every copy of the model go. Raises Conflict where it is pinned."""
        id_ = self.mesh.catalog.models.resolve(name, version)
        declared = self.mesh.catalog.models.declared(id_)
        if declared is None:
            raise errors.ModelNotFound(f"model {str(id_)!r} is not registered")
        if declared.spec.pinned:
            raise errors.Conflict(f"model {str(id_)!r} is pinned: unpin it first")
        for worker_id in self.mesh.workers.ready(declared.spec.pool):
            with contextlib.suppress(errors.Unavailable):
                await self.cluster.unload(worker_id, id_)
        await self.copies(id_)
        return id_

    async def copies(self, id_: model.ModelId) -> dict[str, reports.CopyReport]:
        """How the model's copies are now, by worker: as its homes and those that had one say themselves."""
        found: dict[str, reports.CopyReport] = {}
        for worker_id in self._holders(id_):
            try:
                copies = await self.cluster.copies(worker_id, (id_,))
            except errors.Unavailable:
                continue
            found.update((worker_id, copy) for copy in copies)
            await self.submit(events.CopySeen(worker_id, id_, found.get(worker_id)))
        return found

    async def tallies(self) -> dict[model.ModelId, model_stats.ModelStats]:
        """The numbers of every model that any ready worker has answered for, all workers together."""
        whole: dict[model.ModelId, model_stats.ModelStats] = {}
        for worker in [
            worker for worker in self.mesh.workers.records.values() if worker.state == "ready"
        ]:
            try:
                counted = await self.cluster.stats(worker.id)
            except errors.Unavailable:
                continue
            for id_, numbers in counted.items():
                whole.setdefault(id_, model_stats.ModelStats()).add(numbers)
        return whole

    def _holders(self, id_: model.ModelId) -> list[str]:
        names = (id_.name, *self.mesh.catalog.aliases_of(id_.name))
        homes = {self.mesh.home(name) for name in names}
        had = {
            worker.id
            for worker in self.mesh.workers.records.values()
            if worker.state == "ready" and id_ in worker.copies
        }
        return sorted(home for home in homes | had if home is not None)
