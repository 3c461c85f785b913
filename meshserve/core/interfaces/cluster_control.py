"""What the control plane needs from the outside, as Protocols that the edges and the fakes implement and `app` joins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from meshserve.core.values import (
    catalog_sync,
    desired,
    events,
    llm_spec,
    model,
    model_stats,
    reports,
    snapshots,
)


@dataclass(frozen=True, slots=True)
class WorkerCapacity:
    """What the cluster has for workers."""

    cores: int
    gpus: int


class WorkerControl(Protocol):
    """The cluster's workers, by their ids. A method for a worker that is not there, or goes meanwhile, raises Unavailable."""

    async def living_workers(self) -> tuple[events.LivingWorker, ...]:
        """The workers that run, whoever started them."""
        ...

    async def start_worker(
        self, worker_id: str, settings: desired.WorkerSettings
    ) -> events.WorkerStarted:
        """Start its process, in place of any that is left of an earlier one; returns once it listens. Raises MeshError with the reason."""
        ...

    async def stop_worker(self, worker_id: str) -> None:
        """Let it answer what it has accepted, end it, and leave nothing behind. No error where it is not there."""
        ...

    async def wait_until_lost(self, worker_id: str) -> str:
        """Returns the reason once its process has ended in whatever way; at once where there is none."""
        ...

    async def send_changes(self, worker_id: str, step: catalog_sync.SyncStep) -> None:
        """Have it take a step of its catalog in. Raises catalog_sync.MissedStep where a step before it is missing."""
        ...

    async def ensure_loaded(self, worker_id: str, id_: model.ModelId, timeout_s: float) -> None:
        """Returns once it has the model in memory. Raises why it can't be: LoadFailed, ModelNotFound, DeadlineExceeded."""
        ...

    async def unload(self, worker_id: str, id_: model.ModelId) -> None:
        """Have its copy go as soon as nobody uses it. No error where it has none."""
        ...

    async def pin(self, worker_id: str, id_: model.ModelId, *, is_pinned: bool) -> None:
        """Have it keep its copy from when it has one, or treat it like any other again."""
        ...

    async def copies(
        self, worker_id: str, ids: tuple[model.ModelId, ...]
    ) -> tuple[reports.CopyReport, ...]:
        """How its copies of these models are now; nothing for those that it has none of."""
        ...

    async def tallies(self, worker_id: str) -> dict[model.ModelId, model_stats.ModelStats]:
        """The numbers of every model that it has answered for."""
        ...

    async def report(self, worker_id: str, since: int) -> reports.WorkerReport:
        """How it is now, and what has changed of its copies since its report `since`; all of them where that was not its last."""
        ...


class GatewayControl(Protocol):
    """The cluster's gateways, by their nodes. A method for a gateway that is not there raises Unavailable."""

    async def start_gateway(
        self, node: str, snap: snapshots.GatewaySnapshot
    ) -> reports.GatewayReport:
        """Start it, or take over the one that runs and configure it; returns once it serves. Raises MeshError with the reason."""
        ...

    async def configure_gateway(self, node: str, snap: snapshots.GatewaySnapshot) -> None:
        """Have it serve by this snapshot; returns once it does. Raises MeshError where it goes on with the one before."""
        ...

    async def stop_gateway(self, node: str) -> None:
        """Let it answer what it has accepted, and end it. No error where it is not there."""
        ...

    async def gateway_report(self, node: str) -> reports.GatewayReport:
        """How it is now."""
        ...


class ReplicaControl(Protocol):
    """The engines of LLMs, by the ids of their replicas. A method for one that is not there, or goes meanwhile, raises Unavailable."""

    async def living_replicas(self) -> tuple[llm_spec.LivingReplica, ...]:
        """The replicas that run, whoever started them."""
        ...

    async def start_replica(
        self, replica_id: str, spec: llm_spec.LlmSpec, plan: llm_spec.ReplicaPlan
    ) -> events.ReplicaReady:
        """Start it, in place of any that is left of an earlier one; returns once it has made a token. Raises MeshError with the reason."""
        ...

    async def stop_replica(self, replica_id: str) -> None:
        """Let it answer what it has accepted, end it with all its processes, and free what it held. No error where it is not there."""
        ...

    async def wait_until_replica_lost(self, replica_id: str) -> str:
        """Returns the reason once its process or its engine has ended, or its tokens stall; at once where there is none."""
        ...

    async def sleep_replica(self, replica_id: str, level: int) -> None:
        """Let it answer what it has accepted, and have it sleep. Raises MeshError."""
        ...

    async def wake_replica(self, replica_id: str) -> events.ReplicaWoken:
        """Returns once it has made a token again. Raises MeshError."""
        ...

    async def replica_report(self, replica_id: str) -> llm_spec.LlmReport:
        """How it is now."""
        ...

    async def room(self) -> tuple[llm_spec.NodeCapacity, ...]:
        """What the nodes have for engines."""
        ...


class Cluster(WorkerControl, GatewayControl, ReplicaControl, Protocol):
    """Where workers, gateways and replicas run."""

    async def capacity(self) -> WorkerCapacity:
        """What there is for workers, all nodes together."""
        ...

    async def nodes(self) -> tuple[str, ...]:
        """The nodes that shall have a gateway."""
        ...


class RegistryStore(Protocol):
    """The registry. Its methods block; one thread at a time calls them."""

    def load(self) -> events.RegistryContents:
        """All that it holds."""
        ...

    def save(self, changes: Sequence[events.RegistryChange]) -> None:
        """Make the changes durable, all or none."""
        ...

    def remember(self, learned: Sequence[reports.LearnedMeasurement]) -> None:
        """Keep what was learned about models that it holds."""
        ...


class Clock(Protocol):
    """Time, so that tests can move it by hand."""

    def now_s(self) -> float:
        """Seconds since some moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return when so much time has gone by."""
        ...


@dataclass(frozen=True, slots=True)
class RepositoryScan:
    """What a repository holds at one moment, and what in it can't be served, in words."""

    specs: tuple[model.ModelSpec, ...]
    problems: tuple[str, ...] = ()


class RepositoryWatch(Protocol):
    """Repositories of models."""

    def scans(
        self, of: desired.RepositorySettings, load_timeout_s: float
    ) -> AsyncIterator[RepositoryScan]:
        """What the repository holds now, and again after each change; ends after the first where it is not to be watched."""
        ...
