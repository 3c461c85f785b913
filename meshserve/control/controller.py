"""The controller's loop: one queue brings events, the mesh decides, effects perform commands."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from meshserve import errors, tasks
from meshserve.control import caller, effects, monitor, registry_effects, registry_thread
from meshserve.core.interfaces import cluster_control
from meshserve.core.mesh import change_spread, mesh, mesh_view, model_totals
from meshserve.core.values import (
    commands,
    desired,
    events,
    gateway_events,
    llm_events,
    model,
    nodes,
    registry_contents,
)

TICK_S = 0.5
TAKEN_TIMEOUT_S = 5.0
LOOK_PERIOD_S = 2.0
"""The pause between two reads of the cluster's nodes, and of their GPUs."""

T = TypeVar("T")
Words = tuple[str, ...]
Condition = Callable[[mesh_view.MeshView], bool]
logger = logging.getLogger(__name__)


class Controller:
    """The loop around the mesh. Only events change the mesh; reads post no events.

    `answer_held` answers a held request of an LLM.
    """

    def __init__(
        self,
        cluster: cluster_control.Cluster,
        registry: registry_thread.RegistryThread,
        clock: cluster_control.Clock,
        answer_held: Callable[[commands.HeldCommand], None],
        restarts: int = 0,
    ) -> None:
        self.restarts = restarts
        self.events_handled = 0
        self.failures = 0
        self._mesh = mesh.Mesh()
        self._cluster = cluster
        self._clock = clock
        self.begun_s = clock.now_s()
        self._answer_held = answer_held
        self._queue: asyncio.Queue[events.Event] = asyncio.Queue()
        self._effects = effects.Effects(cluster, clock, self.post, self._mesh.gateway_snapshot)
        self._registry = registry_effects.RegistryEffects(registry, clock, self.post)
        self._monitor = monitor.Monitor(cluster, clock, self.post, self._progress)
        self.mesh_id = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._numbers = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Words]] = {}
        self._conditions: list[tuple[Condition, asyncio.Future[None]]] = []
        self._drained = asyncio.Event()

    async def start(
        self,
        endpoint: model.Endpoint,
        last: desired.Desired,
        wanted: desired.Desired | None,
        contents: registry_contents.RegistryContents,
    ) -> Words:
        """Restore the mesh, adopt running processes, apply `wanted` and return what it changed.

        `last` is the previous configuration, which stays without a `wanted` one. Raises the
        MeshError that refuses `wanted`; then nothing is started.
        """
        self.mesh_id = contents.mesh_id
        restored = events.Restored(
            (last, *contents.changes),
            await self._cluster.living_workers(),
            endpoint,
            is_config_coming=wanted is not None,
            replicas=await self._cluster.living_replicas(),
        )
        # `_handle` would catch exceptions, but a controller that can't restore must not go on.
        self._perform(self._mesh.handle(restored, self._clock.now_s()))
        loops = {
            "events": self._handle_events,
            "ticks": self._tick,
            "nodes": self._look_at_nodes,
            "capacity": self._look_at_capacity,
        }
        self._tasks = [tasks.spawn(tasks.keep(loop, name), name) for name, loop in loops.items()]
        try:
            return () if wanted is None else await self.submit(events.ConfigApplied(wanted))
        except errors.MeshError:
            await self.close()
            raise

    def adopt_figures(self, saved: model_totals.SavedTotals) -> None:
        """Go on from the figures of models that an earlier controller has saved, before `start`."""
        self._mesh.totals.restore(saved)

    async def close(self) -> None:
        """Stop the loop and fail open requests; workers, gateways and replicas go on."""
        self._effects.close()
        self._monitor.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._registry.close()
        # Their changes may be saved all the same: the registry decides at the next start.
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(errors.Unavailable("the controller is ending"))

    # Requests

    def post(self, event: events.Event) -> None:
        """Queue an event; the loop handles events in order."""
        self._queue.put_nowait(event)

    async def submit(self, request: events.AdminRequest) -> Words:
        """Make a request; once its changes are saved, return them in words.

        Raises the MeshError that refuses it.
        """
        by = caller.name()
        return await self._request(lambda ticket: events.AdminRequested(ticket, request, by))

    async def load(self, name: str, id_: model.ModelId) -> None:
        """Return once the model is in memory where requests for `name` go.

        Raises Unavailable without a ready worker, else the error of the load.
        """
        await self._request(lambda ticket: events.ModelLoadRequested(ticket, name, id_))

    async def unload(self, id_: model.ModelId) -> None:
        """Return once no worker keeps a copy of the model. Raises ModelNotFound, Conflict."""
        await self._request(lambda ticket: events.ModelUnloadRequested(ticket, id_))

    async def _request(self, make: Callable[[str], events.TicketedRequest]) -> Words:
        ticket = str(next(self._numbers))
        answer: asyncio.Future[Words] = asyncio.get_running_loop().create_future()
        self._answers[ticket] = answer
        self.post(make(ticket))
        try:
            return await answer
        finally:
            # Also if the caller has left, because nothing else forgets the ticket.
            del self._answers[ticket]

    # Reads

    def view(self) -> mesh_view.MeshView:
        """Return the mesh as it is now."""
        return self._mesh.view()

    def now_s(self) -> float:
        """Return the time of the clock that events are logged by."""
        return self._clock.now_s()

    async def wait_until(self, condition: Condition) -> None:
        """Return once the condition holds; it is evaluated after each event."""
        if condition(self.view()):
            return
        waiter = (condition, asyncio.get_running_loop().create_future())
        self._conditions.append(waiter)
        try:
            await waiter[1]
        finally:
            with contextlib.suppress(ValueError):
                self._conditions.remove(waiter)

    async def wait_until_taken(self) -> tuple[str, ...]:
        """Return once all that get requests have taken the acknowledged changes, or after 5 s.

        Returns in words which have not: they still answer as before.
        """
        workers, gateways = self._mesh.workers, self._mesh.gateways
        noted = change_spread.mark(workers, gateways)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKEN_TIMEOUT_S):
                # Pins follow from changes too. A command that failed counts as performed, so what
                # was taken is looked at besides.
                await self._effects.wait_until_settled("worker", "gateway")
                await self.wait_until(lambda _: not change_spread.behind(noted, workers, gateways))
        return change_spread.behind(noted, workers, gateways)

    async def wait_until_drained(self) -> None:
        """Return when all processes have ended after a DrainRequested."""
        await self._drained.wait()

    def _progress(self, worker_id: str) -> monitor.WorkerProgress:
        worker = self._mesh.workers.records.get(worker_id)
        if worker is None:
            return monitor.WorkerProgress()
        return monitor.WorkerProgress(worker.synced, worker.report.number if worker.report else 0)

    # The loop

    async def _handle_events(self) -> None:
        while True:
            self._handle(await self._queue.get())

    def _handle(self, event: events.Event) -> None:
        try:
            following = self._mesh.handle(event, self._clock.now_s())
        except Exception as error:
            # A bug of ours must not end the only task that handles events. Commands decided before
            # it are still performed. The log has an IllegalMove's earlier moves in its message.
            self.failures += 1
            logger.exception("%s could not be handled", type(event).__name__)
            following = self._mesh.take_commands()
            if isinstance(event, events.TicketedRequest):
                reason = errors.MeshError(f"the controller failed: {error!r}")
                following.append(commands.Refuse(event.ticket, reason))
        self.events_handled += 1
        self._perform(following)
        self._look_at_conditions()
        if self._mesh.is_drained:
            self._drained.set()

    def _perform(self, following: Iterable[commands.Command]) -> None:
        # No await here: all commands of one event are queued before any of them is performed, so
        # that a worker is stopped only after the gateways were ordered to forget it.
        for command in following:
            if isinstance(command, commands.RegistryCommand):
                self._registry.perform(command)
            elif isinstance(command, commands.AnswerCommand):
                self._answer(command)
            elif isinstance(command, commands.MonitorCommand):
                self._watch(command)
            elif isinstance(command, commands.HeldCommand):
                self._answer_held(command)
            else:
                self._effects.perform(command)

    def _answer(self, command: commands.AnswerCommand) -> None:
        # No future waits if the caller has left, or if a bug led to a refusal before.
        answer = self._answers.get(command.ticket)
        if answer is None or answer.done():
            return
        if isinstance(command, commands.Refuse):
            answer.set_exception(command.error)
        else:
            answer.set_result(command.words)

    def _watch(self, command: commands.MonitorCommand) -> None:
        if isinstance(command, commands.Watch):
            self._monitor.watch(command.kind, command.id, command.pid)
            return
        self._monitor.unwatch(command.kind, command.id)
        if command.reason:
            logger.warning("%s %s is lost: %s", command.kind, command.id, command.reason)

    def _look_at_conditions(self) -> None:
        # The view is built only if a condition waits.
        for condition, waiter in self._conditions:
            # The task that waits removes it later, so the list does not change in this loop.
            if not waiter.done() and condition(self.view()):
                waiter.set_result(None)

    # Looks at the clock and the cluster

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            self.post(events.Ticked())

    async def _look_at_nodes(self) -> None:
        seen: tuple[nodes.ClusterNode, ...] = ()
        while True:
            living = await self._or_none(self._cluster.nodes(), "the nodes can't be listed")
            if living is not None and living != seen:
                # A node that can't be listed for a moment keeps its gateway: `seen` stays.
                seen = living
                self.post(gateway_events.NodesSeen(living))
            await self._clock.sleep(LOOK_PERIOD_S)

    async def _look_at_capacity(self) -> None:
        while True:
            # Without LLMs nothing needs GPUs, and each read is a call to the cluster.
            if self._mesh.llms.llms:
                capacity = await self._or_none(
                    self._cluster.node_capacities(), "no capacity for LLMs is known"
                )
                if capacity is not None:
                    self.post(llm_events.CapacitySeen(capacity))
            await self._clock.sleep(LOOK_PERIOD_S)

    async def _or_none(self, call: Awaitable[T], problem: str) -> T | None:
        try:
            return await call
        except errors.MeshError as error:
            logger.warning("%s: %s", problem, error.message)
            return None
