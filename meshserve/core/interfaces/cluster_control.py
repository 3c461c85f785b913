"""The Protocols through which the control plane acts on the outside: cluster, registry, clock.

The edges implement them, and so do the fakes in `meshserve.testing`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from meshserve.core.values import (
    catalog_sync,
    desired,
    events,
    llm_events,
    llm_spec,
    model,
    model_stats,
    nodes,
    reports,
    snapshots,
)


@dataclass(frozen=True, slots=True)
class WorkerCapacity:
    """The CPU cores and GPUs of the whole cluster that workers may use."""

    cores: int
    gpus: int


class WorkerControl(Protocol):
    """The cluster's workers by id.

    Each method that names a worker raises Unavailable if it does not run or ends meanwhile.
    """

    async def living_workers(self) -> tuple[events.LivingWorker, ...]:
        """Return the workers that run, also those that an earlier controller has started."""
        ...

    async def start_worker(
        self,
        worker_id: str,
        settings: desired.WorkerSettings,
        avoided: frozenset[str] = frozenset(),
    ) -> events.WorkerStarted:
        """Start a worker and return once it listens; one of the same id is replaced.

        It is on none of the nodes `avoided`. Raises MeshError with the reason if it does not start.
        """
        ...

    async def stop_worker(self, worker_id: str) -> None:
        """Let the worker answer its requests, then end it. Does nothing if it does not run."""
        ...

    async def wait_until_lost(self, worker_id: str) -> str:
        """Return the reason once the worker's process has ended; at once if it does not run."""
        ...

    async def send_changes(self, worker_id: str, step: catalog_sync.SyncStep) -> None:
        """Apply a step of the worker's catalog. Raises MissedStep if one before it is missing."""
        ...

    async def ensure_loaded(self, worker_id: str, id_: model.ModelId, timeout_s: float) -> None:
        """Return once the worker has the model in memory.

        Raises LoadFailed, ModelNotFound, Overloaded or DeadlineExceeded if it can't.
        """
        ...

    async def unload(self, worker_id: str, id_: model.ModelId) -> None:
        """Free the worker's copy of the model with its last lease. Does nothing without a copy."""
        ...

    async def pin(self, worker_id: str, id_: model.ModelId, *, is_pinned: bool) -> None:
        """Keep the worker's copy in memory, now or from its next load, or end that."""
        ...

    async def copies(
        self, worker_id: str, ids: tuple[model.ModelId, ...]
    ) -> tuple[reports.CopyReport, ...]:
        """Return the reports of the copies of these models; an absent copy has none."""
        ...

    async def stats(self, worker_id: str) -> dict[model.ModelId, model_stats.ModelStats]:
        """Return the counters of each model that the worker has had requests for."""
        ...

    async def report(self, worker_id: str, since: int) -> reports.WorkerReport:
        """Return the worker's report with the copies that have changed since its report `since`.

        It has all copies if `since` is 0 or not the number of its last report.
        """
        ...


class GatewayControl(Protocol):
    """The cluster's gateways by node.

    Each method that names a node raises Unavailable if no gateway runs there.
    """

    async def start_gateway(
        self, node: str, snapshot: snapshots.GatewaySnapshot
    ) -> reports.GatewayReport:
        """Start the node's gateway, or take over the one that runs; return once it serves.

        Raises MeshError with the reason if it does not start.
        """
        ...

    async def configure_gateway(self, node: str, snapshot: snapshots.GatewaySnapshot) -> None:
        """Return once the gateway serves by the snapshot.

        Raises MeshError if it goes on with the one before.
        """
        ...

    async def stop_gateway(self, node: str) -> None:
        """Let the gateway answer its requests, then end it. Does nothing if it does not run."""
        ...

    async def wait_until_gateway_lost(self, node: str) -> str:
        """Return the reason once the gateway's process has ended; at once if it does not run."""
        ...

    async def gateway_report(self, node: str) -> reports.GatewayReport:
        """Return the gateway's report."""
        ...


class ReplicaControl(Protocol):
    """The engines of LLMs by replica id.

    Each method that names a replica raises Unavailable if it does not run or ends meanwhile.
    """

    async def living_replicas(self) -> tuple[llm_spec.LivingReplica, ...]:
        """Return the replicas that run, also those that an earlier controller has started."""
        ...

    async def start_replica(
        self, replica_id: str, spec: llm_spec.LlmSpec, plan: llm_spec.ReplicaPlan
    ) -> llm_events.ReplicaReady:
        """Start a replica and return once it has made a token; one of the same id is replaced.

        Raises MeshError with the reason if it does not start.
        """
        ...

    async def update_replica(self, replica_id: str, spec: llm_spec.LlmSpec) -> None:
        """Have a running replica follow a spec that differs in what it can be told.

        Raises MeshError with the reason if it goes on as before.
        """
        ...

    async def stop_replica(self, replica_id: str) -> None:
        """Let the replica answer its requests, then end its processes and free its GPUs.

        Does nothing if it does not run.
        """
        ...

    async def wait_until_replica_lost(self, replica_id: str) -> str:
        """Return the reason once the replica's process or engine has ended, or its tokens stall.

        Returns at once if it does not run.
        """
        ...

    async def sleep_replica(self, replica_id: str, level: int) -> None:
        """Let the replica answer its requests, then put it to sleep at vLLM's `level` (1 or 2).

        Raises MeshError if its engine fails.
        """
        ...

    async def wake_replica(self, replica_id: str) -> llm_events.ReplicaWoken:
        """Wake the replica and return once it has made a token. Raises MeshError if it fails."""
        ...

    async def replica_report(self, replica_id: str) -> llm_spec.LlmReport:
        """Return the replica's report."""
        ...

    async def node_capacities(self) -> tuple[llm_spec.NodeCapacity, ...]:
        """Return the GPUs and memory of each node that engines may use."""
        ...


class Cluster(WorkerControl, GatewayControl, ReplicaControl, Protocol):
    """The cluster that runs workers, gateways and replicas."""

    async def capacity(self) -> WorkerCapacity:
        """Return what workers may use on all nodes together."""
        ...

    async def nodes(self) -> tuple[nodes.ClusterNode, ...]:
        """Return the living nodes."""
        ...

    async def end_node(self, node: str) -> None:
        """End a node that runs nothing of the mesh any more. Raises Unavailable if it stays."""
        ...


class Clock(Protocol):
    """Time, as a Protocol so that tests can move it by hand."""

    def now_s(self) -> float:
        """Return the seconds since an arbitrary moment; never decreases."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        ...


@dataclass(frozen=True, slots=True)
class RepositoryScan:
    """The models of a repository at one moment. `problems` say in words what can't be served.

    `broken` has by its model's name why a description can't be read; the model stays as it was.
    """

    specs: tuple[model.ModelSpec, ...]
    problems: tuple[str, ...] = ()
    broken: Mapping[str, str] = field(default_factory=dict)


class RepositoryWatch(Protocol):
    """The model repositories."""

    def scans(
        self,
        repository: desired.RepositorySettings,
        load_timeout_s: float,
        known: tuple[model.ModelSpec, ...] = (),
    ) -> AsyncIterator[RepositoryScan]:
        """Yield what the repository holds, and again after each change if it is to be watched.

        Models that name no time-out of their own get `load_timeout_s`. What is `known` of a model
        stays while its description can't be read.
        """
        ...

    async def look_at(self, repository: desired.RepositorySettings, name: str) -> None:
        """Return once `scans` has yielded the model's present files, and its caller has taken them.

        Nothing of the model counts as still being written. Returns at once if nothing follows the
        repository.
        """
        ...

    async def as_declared(
        self, repository: desired.RepositorySettings, spec: model.ModelSpec, configuration: str
    ) -> tuple[model.ModelSpec, ...]:
        """Return the versions of a model if its folder had this configuration of Triton, as JSON.

        `spec` is one of them. Returns nothing if no folder with versions is behind the model.
        Raises InvalidRequest for a malformed configuration, LoadFailed if nothing is to be served.
        """
        ...
