"""Everything that can happen to the mesh. Users' wishes come first: they may be refused, and hold once they are saved."""

from __future__ import annotations

from dataclasses import dataclass

from meshserve import errors
from meshserve.core.values import catalog, desired, llm_spec, model, reports

RegistryChange = (
    catalog.ModelDeclared
    | catalog.ModelWithdrawn
    | desired.DesiredAlias
    | catalog.AliasCleared
    | desired.Desired
)


@dataclass(frozen=True, slots=True)
class RegistryContents:
    """All that a registry holds: changes that make the catalog, and the last configuration's document (empty: there was none)."""

    changes: tuple[RegistryChange, ...] = ()
    document: str = ""
    mesh_id: str = ""


@dataclass(frozen=True, slots=True)
class ConfigApplied:
    """This configuration shall hold from now on, in place of the last one."""

    desired: desired.Desired


@dataclass(frozen=True, slots=True)
class ModelsRegistered:
    """These models shall be served: all of them, or none. `is_replacing` allows to change what the API registered before."""

    specs: tuple[model.ModelSpec, ...]
    is_replacing: bool = False


@dataclass(frozen=True, slots=True)
class ModelRemoved:
    """The model, or one version of it, shall not be served any more."""

    name: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class RepositoryScanned:
    """A repository holds exactly these models now."""

    origin: model.Origin
    specs: tuple[model.ModelSpec, ...]


@dataclass(frozen=True, slots=True)
class AliasRequested:
    """The alias is to mean the model: at once, or with `is_gradual` once the model is loaded.

    `expected`, if not empty, is its target before. `spec` registers the model with it.
    """

    alias: desired.DesiredAlias
    is_gradual: bool = False
    is_update_only: bool = False
    expected: str = ""
    spec: model.ModelSpec | None = None


@dataclass(frozen=True, slots=True)
class AliasRemovalRequested:
    """The alias shall mean nothing any more. `owner` must be its owner, where it is not empty."""

    alias: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class PinRequested:
    """The model shall stay in memory, or need not any more."""

    id: model.ModelId
    is_pinned: bool


AdminRequest = (
    ConfigApplied
    | ModelsRegistered
    | ModelRemoved
    | RepositoryScanned
    | AliasRequested
    | AliasRemovalRequested
    | PinRequested
)


@dataclass(frozen=True, slots=True)
class AdminRequested:
    """An admin request: answered by Acknowledge once its changes are saved, or by Refuse."""

    ticket: str
    request: AdminRequest


@dataclass(frozen=True, slots=True)
class ModelLoadRequested:
    """A user wants the model in memory where requests for `name` go: answered like the above."""

    ticket: str
    name: str
    id: model.ModelId
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class ModelUnloadRequested:
    """A user wants no copy of the model in memory: answered by Acknowledge or Refuse."""

    ticket: str
    id: model.ModelId


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """Everything shall end in good order, and nothing be started any more."""


@dataclass(frozen=True, slots=True)
class ChangesSaved:
    """The changes of the last SaveChanges are durable."""

    changes: tuple[RegistryChange, ...]


@dataclass(frozen=True, slots=True)
class SaveFailed:
    """The registry could not save the changes of the last SaveChanges; it has none of them."""

    error: errors.MeshError


@dataclass(frozen=True, slots=True)
class LivingWorker:
    """A worker that runs while the controller begins. `is_ready`: it has had a whole catalog and serves."""

    worker_id: str
    settings: desired.WorkerSettings
    endpoint: model.Endpoint
    pid: int
    is_ready: bool = True


@dataclass(frozen=True, slots=True)
class Restored:
    """The controller begins: what the registry holds, and what runs already. The first event of all.

    `is_config_coming`: nothing is to be started before the first ConfigApplied is saved.
    """

    changes: tuple[RegistryChange, ...] = ()
    workers: tuple[LivingWorker, ...] = ()
    controller: model.Endpoint | None = None
    is_config_coming: bool = False
    replicas: tuple[llm_spec.LivingReplica, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker's process is up and listens; it knows no models yet."""

    worker_id: str
    endpoint: model.Endpoint
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerSynced:
    """A worker has taken in all catalog steps up to this revision."""

    worker_id: str
    revision: int


@dataclass(frozen=True, slots=True)
class SyncFailed:
    """A worker could not take this step in."""

    worker_id: str
    revision: int


@dataclass(frozen=True, slots=True)
class WorkerReported:
    """A worker's report. It was asked for when the worker was known to have `revision`."""

    report: reports.WorkerReport
    revision: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker's process is gone, or could not be started. `pid` is the process's, 0 where there was none."""

    worker_id: str
    reason: str
    pid: int = 0


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """A worker has drained and ended, as it was told to."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class CopyEnsured:
    """An EnsureLoaded has ended: with an `error`, or the worker has the model in memory.

    `copy` is the worker's copy after that, None if it has none.
    """

    worker_id: str
    id: model.ModelId
    error: errors.MeshError | None = None
    copy: reports.CopyReport | None = None
    ticket: str = ""

    @property
    def failure(self) -> str:
        """The error's message, empty without an error."""
        return self.error.message if self.error else ""


@dataclass(frozen=True, slots=True)
class CopyUnloaded:
    """An Unload has ended: with an `error`, or the worker's copy goes once it is not in use."""

    worker_id: str
    id: model.ModelId
    error: errors.MeshError | None = None
    copy: reports.CopyReport | None = None
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class NodesSeen:
    """These nodes shall have a gateway."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GatewayReported:
    """A node's gateway serves, and this is how it is."""

    report: reports.GatewayReport


@dataclass(frozen=True, slots=True)
class GatewayConfigured:
    """A node's gateway serves by the snapshot of this revision."""

    node: str
    revision: int


@dataclass(frozen=True, slots=True)
class GatewayLost:
    """A node's gateway is gone, or could not be started."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class GatewayStopped:
    """A node's gateway has drained and ended, as it was told to."""

    node: str


@dataclass(frozen=True, slots=True)
class RequestHeld:
    """A request for an LLM waits at a gateway: it is answered by Admit or TurnAway. `name` is any of the LLM's names."""

    ticket: str
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class HeldRequestLeft:
    """The client of a held request has gone, or was answered otherwise."""

    ticket: str


@dataclass(frozen=True, slots=True)
class ReplicaReady:
    """A replica's engine answers: it has made a token. `took_s` is how long the start took."""

    replica_id: str
    endpoint: model.Endpoint
    pid: int
    took_s: float


@dataclass(frozen=True, slots=True)
class ReplicaReported:
    """A replica's report."""

    report: llm_spec.LlmReport


@dataclass(frozen=True, slots=True)
class ReplicaLost:
    """A replica's process or engine is gone, or could not be started, woken or put to sleep.

    `pid` is the process's, 0 where there was none.
    """

    replica_id: str
    reason: str
    pid: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaStopped:
    """A replica has drained and ended, as it was told to: its GPUs are free."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class ReplicaSlept:
    """A replica has drained and is asleep, as it was told to."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class ReplicaWoken:
    """A replica is awake again and has made a token. `took_s` is how long that took."""

    replica_id: str
    took_s: float


@dataclass(frozen=True, slots=True)
class CapacitySeen:
    """What the cluster's nodes have for engines."""

    nodes: tuple[llm_spec.NodeCapacity, ...]


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time went by."""


TicketedRequest = AdminRequested | ModelLoadRequested | ModelUnloadRequested
WorkerEvent = (
    WorkerStarted
    | WorkerSynced
    | SyncFailed
    | WorkerReported
    | WorkerLost
    | WorkerStopped
    | CopyEnsured
    | CopyUnloaded
)
GatewayEvent = NodesSeen | GatewayReported | GatewayConfigured | GatewayLost | GatewayStopped
LlmEvent = (
    RequestHeld
    | HeldRequestLeft
    | ReplicaReady
    | ReplicaReported
    | ReplicaLost
    | ReplicaStopped
    | ReplicaSlept
    | ReplicaWoken
    | CapacitySeen
)
Event = (
    TicketedRequest
    | Restored
    | ChangesSaved
    | SaveFailed
    | DrainRequested
    | WorkerEvent
    | GatewayEvent
    | LlmEvent
    | Ticked
)
