"""Watch workers, gateways and replicas: ask for their reports, and notice their ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import assert_never

from meshserve import errors, tasks
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import commands, events, gateway_events, llm_events

REPORT_PERIOD_S = 1.0
PAGE_PERIOD_S = 0.05
"""The pause between two pages of one report, in which the worker answers requests."""
REPORT_TIMEOUT_S = 10.0
# One miss is no death: a model in native code may hold the interpreter's lock for seconds, and to
# kill one worker after the other for it would end the pool.
SILENCES_MAX = 3
SILENT = "it does not report any more"


@dataclass(frozen=True, slots=True)
class WorkerProgress:
    """A worker's catalog revision, and the number of its last report, as the controller knows them.

    `report` is 0 before the first report of a process.
    """

    revision: int = 0
    report: int = 0


class Monitor:
    """Two tasks for each watched process: one asks for its reports, one waits for its end.

    Events go to `post`; `progress` returns the progress of a worker by its id.
    """

    def __init__(
        self,
        cluster: cluster_control.Cluster,
        clock: cluster_control.Clock,
        post: Callable[[events.Event], None],
        progress: Callable[[str], WorkerProgress],
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._post = post
        self._progress = progress
        self._tasks: dict[tuple[commands.ProcessKind, str], list[asyncio.Task[None]]] = {}

    def watch(self, kind: commands.ProcessKind, id_: str, pid: int) -> None:
        """Watch a process that runs, in place of an earlier one of the same id."""
        match kind:
            case "worker":
                watchers = [self._poll_worker(id_, pid), self._wait_for_worker_end(id_, pid)]
            case "gateway":
                watchers = [self._poll_gateway(id_), self._wait_for_gateway_end(id_)]
            case "replica":
                watchers = [self._poll_replica(id_, pid), self._wait_for_replica_end(id_, pid)]
            case _:
                assert_never(kind)
        # A restarted process keeps its id; the old tasks would report its former process's end.
        self.unwatch(kind, id_)
        self._tasks[kind, id_] = [tasks.spawn(task, f"watch {kind} {id_}") for task in watchers]

    def unwatch(self, kind: commands.ProcessKind, id_: str) -> None:
        """Stop watching a process."""
        for task in self._tasks.pop((kind, id_), ()):
            task.cancel()

    def close(self) -> None:
        """Stop watching everything."""
        for kind, id_ in list(self._tasks):
            self.unwatch(kind, id_)

    async def _wait_for_worker_end(self, worker_id: str, pid: int) -> None:
        reason = await self._cluster.wait_until_lost(worker_id)
        self._post(events.WorkerLost(worker_id, reason, pid))

    async def _wait_for_gateway_end(self, node: str) -> None:
        reason = await self._cluster.wait_until_gateway_lost(node)
        self._post(gateway_events.GatewayLost(node, reason))

    async def _wait_for_replica_end(self, replica_id: str, pid: int) -> None:
        reason = await self._cluster.wait_until_replica_lost(replica_id)
        self._post(llm_events.ReplicaLost(replica_id, reason, pid))

    async def _poll_worker(self, worker_id: str, pid: int) -> None:
        async def poll() -> float:
            # Read before the call: steps that the worker applies during it are not overlooked.
            progress = self._progress(worker_id)
            report = await self._cluster.report(worker_id, progress.report)
            self._post(events.WorkerReported(report, progress.revision))
            return PAGE_PERIOD_S if report.has_more else REPORT_PERIOD_S

        await self._poll_until_silent(poll)
        self._post(events.WorkerLost(worker_id, SILENT, pid))

    async def _poll_replica(self, replica_id: str, pid: int) -> None:
        async def poll() -> float:
            report = await self._cluster.replica_report(replica_id)
            self._post(llm_events.ReplicaReported(report))
            return REPORT_PERIOD_S

        await self._poll_until_silent(poll)
        self._post(llm_events.ReplicaLost(replica_id, SILENT, pid))

    async def _poll_gateway(self, node: str) -> None:
        async def poll() -> float:
            report = await self._cluster.gateway_report(node)
            self._post(gateway_events.GatewayReported(report))
            return REPORT_PERIOD_S

        # The gateway's start has just brought its first report.
        await self._clock.sleep(REPORT_PERIOD_S)
        await self._poll_until_silent(poll)
        self._post(gateway_events.GatewayLost(node, SILENT))

    async def _poll_until_silent(self, poll: Callable[[], Awaitable[float]]) -> None:
        """Poll until SILENCES_MAX polls in a row have failed; `poll` returns the next pause."""
        silences = 0
        while silences < SILENCES_MAX:
            pause_s = REPORT_PERIOD_S
            try:
                async with asyncio.timeout(REPORT_TIMEOUT_S):
                    pause_s = await poll()
                silences = 0
            except (errors.MeshError, TimeoutError):
                # A process that hangs but lives would otherwise never count as lost.
                silences += 1
            await self._clock.sleep(pause_s)
