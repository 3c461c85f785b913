"""LLM replicas in memory, which start, sleep, wake, report and end as real ones do."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

from meshserve import errors
from meshserve.core.values import llm_events, llm_spec, model

TOOK_S = 7.0
"""The duration that every start and every wake reports."""


class FakeReplica:
    """The process of one replica. It reports `last_report`, which a test sets."""

    def __init__(
        self, replica_id: str, spec: llm_spec.LlmSpec, plan: llm_spec.ReplicaPlan, pid: int
    ) -> None:
        self.id = replica_id
        self.spec = spec
        self.plan = plan
        self.pid = pid
        self.endpoint = model.Endpoint(
            plan.node or "n1", "127.0.0.1", 20_000 + pid, f"/run/llm-{pid}.sock"
        )
        self.is_asleep = False
        self.last_report = llm_spec.LlmReport(replica_id)
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()


class FakeReplicas:
    """A `cluster_control.ReplicaControl` whose failures a test sets beforehand.

    By replica, `failing_replicas` says how many of the next starts fail, and `failing_orders` how
    many sleeps and wakes. A start of a replica in `slow` waits for its event. `gpus` has the
    number of GPUs of each node. Calls are appended to `calls` in words.
    """

    def __init__(self, calls: list[str]) -> None:
        self.replicas: dict[str, FakeReplica] = {}
        self.failing_replicas: Counter[str] = Counter()
        self.failing_orders: Counter[str] = Counter()
        self.slow: dict[str, asyncio.Event] = {}
        self.gpus: dict[str, int] = {"n1": 0}
        self._calls = calls
        self._replica_pids = itertools.count(1001)

    def kill_replica(self, replica_id: str, reason: str = "it was killed") -> None:
        """End a replica as SIGKILL does."""
        replica = self.replicas.pop(replica_id)
        if not replica.ended.done():
            replica.ended.set_result(reason)

    async def living_replicas(self) -> tuple[llm_spec.LivingReplica, ...]:
        """Return the replicas that run."""
        return tuple(
            llm_spec.LivingReplica(
                replica.id, replica.spec, replica.endpoint, replica.pid, replica.is_asleep
            )
            for replica in self.replicas.values()
        )

    async def start_replica(
        self, replica_id: str, spec: llm_spec.LlmSpec, plan: llm_spec.ReplicaPlan
    ) -> llm_events.ReplicaReady:
        """Start a replica. Raises LoadFailed while `failing_replicas` counts failures for it."""
        self._calls.append(f"start replica {replica_id}")
        if replica_id in self.replicas:
            self.kill_replica(replica_id)
        if replica_id in self.slow:
            await self.slow[replica_id].wait()
        if self.failing_replicas[replica_id] > 0:
            self.failing_replicas[replica_id] -= 1
            raise errors.LoadFailed(f"{replica_id} can't be started")
        replica = FakeReplica(replica_id, spec, plan, next(self._replica_pids))
        self.replicas[replica_id] = replica
        return llm_events.ReplicaReady(replica_id, replica.endpoint, replica.pid, TOOK_S)

    async def update_replica(self, replica_id: str, spec: llm_spec.LlmSpec) -> None:
        """Give a replica another spec. Raises Unavailable while `failing_orders` counts some."""
        self._calls.append(f"update replica {replica_id}")
        self._obeying(replica_id).spec = spec

    async def stop_replica(self, replica_id: str) -> None:
        """End a replica, if it runs."""
        self._calls.append(f"stop replica {replica_id}")
        if replica_id in self.replicas:
            self.kill_replica(replica_id, "it was stopped")

    async def wait_until_replica_lost(self, replica_id: str) -> str:
        """Return the reason once the replica has ended."""
        replica = self.replicas.get(replica_id)
        # Shielded, because a watcher that is cancelled must not cancel the end for the others.
        return await asyncio.shield(replica.ended) if replica else "there is none"

    async def sleep_replica(self, replica_id: str, level: int) -> None:
        """Put a replica to sleep. Raises Unsupported for one on a CPU."""
        self._calls.append(f"sleep replica {replica_id} {level}")
        replica = self._obeying(replica_id)
        if not replica.spec.gpus:
            raise errors.Unsupported("an engine on the CPU has no GPU to free: it can't sleep")
        replica.is_asleep = True

    async def wake_replica(self, replica_id: str) -> llm_events.ReplicaWoken:
        """Wake a replica."""
        self._calls.append(f"wake replica {replica_id}")
        self._obeying(replica_id).is_asleep = False
        return llm_events.ReplicaWoken(replica_id, TOOK_S)

    async def replica_report(self, replica_id: str) -> llm_spec.LlmReport:
        """Return the report that a test has set."""
        return self._replica(replica_id).last_report

    async def node_capacities(self) -> tuple[llm_spec.NodeCapacity, ...]:
        """Return the nodes with their `gpus`, and how many of them no replica holds."""
        return tuple(self._node_capacity(node, gpus) for node, gpus in self.gpus.items())

    def _node_capacity(self, node: str, gpus: int) -> llm_spec.NodeCapacity:
        holders = [
            replica
            for replica in self.replicas.values()
            if replica.plan.bundles and replica.endpoint.node == node
        ]
        held = sum(sum(replica.plan.bundles) for replica in holders)
        ids = tuple(replica.id for replica in holders)
        return llm_spec.NodeCapacity(node, gpus, gpus - held, 2, ids)

    def _obeying(self, replica_id: str) -> FakeReplica:
        if self.failing_orders[replica_id] > 0:
            self.failing_orders[replica_id] -= 1
            raise errors.Unavailable(f"{replica_id} does not obey")
        return self._replica(replica_id)

    def _replica(self, replica_id: str) -> FakeReplica:
        replica = self.replicas.get(replica_id)
        if replica is None:
            raise errors.Unavailable(f"there is no replica {replica_id}")
        return replica
