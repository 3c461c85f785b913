"""Watches what runs: asks workers, gateways and replicas for reports, and notices when one is gone."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from meshserve import errors, tasks
from meshserve.core.interfaces import cluster_control as ports
from meshserve.core.values import events

REPORT_PERIOD_S = 1.0
PAGE_PERIOD_S = 0.05
"""Where there is more to report than goes into one page, the worker answers requests between two."""
REPORT_TIMEOUT_S = 10.0
SILENCES_MAX = 3

T = TypeVar("T")


class MonitorHost(Protocol):
    """Where events go, and what is known of a worker's catalog."""

    def post(self, event: events.Event) -> None:
        """Take an event in."""
        ...

    def synced(self, worker_id: str) -> int:
        """The revision that the worker is known to have."""
        ...

    def reported(self, worker_id: str) -> int:
        """The number of the worker's last report that was taken in; 0 where there was none."""
        ...


class Monitor:
    """One task for each process that is watched."""

    def __init__(self, cluster: ports.Cluster, clock: ports.Clock, desk: MonitorHost) -> None:
        self._cluster = cluster
        self._clock = clock
        self._desk = desk
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    def watch_worker(self, worker_id: str, pid: int) -> None:
        """Watch a worker's process that is up."""
        self._spawn("worker", worker_id, self._poll_worker(worker_id, pid))
        self._spawn("life", worker_id, self._await_end(worker_id, pid))

    def watch_gateway(self, node: str) -> None:
        """Watch a gateway that serves."""
        if ("gateway", node) not in self._tasks:
            self._spawn("gateway", node, self._poll_gateway(node))

    def watch_replica(self, replica_id: str, pid: int) -> None:
        """Watch a replica that has started."""
        self._spawn("replica", replica_id, self._poll_replica(replica_id, pid))
        self._spawn("engine", replica_id, self._await_replica_end(replica_id, pid))

    def forget_replica(self, replica_id: str) -> None:
        """Stop watching a replica."""
        self._cancel("replica", replica_id)
        self._cancel("engine", replica_id)

    def forget_worker(self, worker_id: str) -> None:
        """Stop watching a worker."""
        self._cancel("worker", worker_id)
        self._cancel("life", worker_id)

    def forget_gateway(self, node: str) -> None:
        """Stop watching a gateway."""
        self._cancel("gateway", node)

    def close(self) -> None:
        """Stop watching."""
        for key in list(self._tasks):
            self._cancel(*key)

    def _spawn(self, kind: str, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._cancel(kind, name)
        self._tasks[kind, name] = tasks.spawn(work, f"watch {kind} {name}")

    def _cancel(self, kind: str, name: str) -> None:
        task = self._tasks.pop((kind, name), None)
        if task is not None:
            task.cancel()

    async def _await_end(self, worker_id: str, pid: int) -> None:
        reason = await self._cluster.wait_until_lost(worker_id)
        self._desk.post(events.WorkerLost(worker_id, reason, pid))

    async def _poll_worker(self, worker_id: str, pid: int) -> None:
        silences = 0
        while silences < SILENCES_MAX:
            revision, since = self._desk.synced(worker_id), self._desk.reported(worker_id)
            said = await self._ask(functools.partial(self._cluster.report, worker_id, since))
            silences = silences + 1 if said is None else 0
            if said is not None:
                self._desk.post(events.WorkerReported(said, revision))
            await self._clock.sleep(
                PAGE_PERIOD_S if said is not None and said.has_more else REPORT_PERIOD_S
            )
        self._desk.post(events.WorkerLost(worker_id, "it does not report any more", pid))

    async def _await_replica_end(self, replica_id: str, pid: int) -> None:
        reason = await self._cluster.wait_until_replica_lost(replica_id)
        self._desk.post(events.ReplicaLost(replica_id, reason, pid))

    async def _poll_replica(self, replica_id: str, pid: int) -> None:
        silences = 0
        while silences < SILENCES_MAX:
            said = await self._ask(lambda: self._cluster.replica_report(replica_id))
            silences = silences + 1 if said is None else 0
            if said is not None:
                self._desk.post(events.ReplicaReported(said))
            await self._clock.sleep(REPORT_PERIOD_S)
        self._desk.post(events.ReplicaLost(replica_id, "it does not report any more", pid))

    async def _poll_gateway(self, node: str) -> None:
        silences = 0
        while silences < SILENCES_MAX:
            await self._clock.sleep(REPORT_PERIOD_S)
            said = await self._ask(lambda: self._cluster.gateway_report(node))
            silences = silences + 1 if said is None else 0
            if said is not None:
                self._desk.post(events.GatewayReported(said))
        self._desk.post(events.GatewayLost(node, "it does not report any more"))

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T | None:
        try:
            async with asyncio.timeout(REPORT_TIMEOUT_S):
                return await question()
        except (errors.MeshError, TimeoutError):
            return None
