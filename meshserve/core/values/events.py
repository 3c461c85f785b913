"""The events that the mesh handles: requests of admins, and what happens to its processes.

An admin request may be refused; one that is granted takes effect once its changes are saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshserve import errors
from meshserve.core.values import (
    desired,
    gateway_events,
    llm_events,
    llm_spec,
    model,
    registry_contents,
    reports,
)


@dataclass(frozen=True, slots=True)
class ConfigApplied:
    """A configuration is to replace the last one."""

    desired: desired.Desired


@dataclass(frozen=True, slots=True)
class ModelsRegistered:
    """Models are to be served, all of them or none.

    With `is_replacing` they may change models that the API has registered.
    """

    specs: tuple[model.ModelSpec, ...]
    is_replacing: bool = False


@dataclass(frozen=True, slots=True)
class ModelRemoved:
    """The model is to be withdrawn; with an empty `version`, all of its versions."""

    name: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class RepositoryScanned:
    """A repository holds exactly these models at the moment."""

    origin: model.Origin
    specs: tuple[model.ModelSpec, ...]


@dataclass(frozen=True, slots=True)
class SourcesStamped:
    """Local files of models have changed.

    `stamps` has for each model the URI of its spec, and the same with a stamp of its files.
    """

    stamps: Mapping[model.ModelId, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class AliasRequested:
    """The alias is to mean the model: at once, or with `is_gradual` once the model is loaded.

    With `is_update_only` the alias must exist. `expected`, if not empty, is the model that the
    alias must mean so far, unless it means the new one already. `spec` is a model to register
    with the alias.
    """

    alias: desired.DesiredAlias
    is_gradual: bool = False
    is_update_only: bool = False
    expected: str = ""
    spec: model.ModelSpec | None = None


@dataclass(frozen=True, slots=True)
class AliasRemovalRequested:
    """The alias is to be cleared. `owner`, if not empty, must be the alias's owner."""

    alias: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class PinRequested:
    """The model is to be pinned in the memory of its home, or unpinned."""

    id: model.ModelId
    is_pinned: bool


@dataclass(frozen=True, slots=True)
class UnloadedSet:
    """All versions of the model are to answer nothing (`unloaded`), or to answer again."""

    name: str
    unloaded: bool


@dataclass(frozen=True, slots=True)
class ModelOverridden:
    """The model is to be served by these specs, in place of what its owner declares.

    Without specs it is to be served by its owner's declaration again.
    """

    name: str
    specs: tuple[model.ModelSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    """The model's quarantine is to end; with an empty `version`, those of all of its versions."""

    name: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class NodeDrainRequested:
    """The node with this name, address or id is to be drained (`nodes.NodeDraining`)."""

    node: str
    move_s: float
    is_ended: bool = False


@dataclass(frozen=True, slots=True)
class NodeDrainEndRequested:
    """The node is to be used again, or has left the cluster."""

    node: str


CatalogRequest = (
    ConfigApplied
    | ModelsRegistered
    | ModelRemoved
    | RepositoryScanned
    | SourcesStamped
    | AliasRequested
    | AliasRemovalRequested
    | PinRequested
    | UnloadedSet
    | ModelOverridden
)
NodeRequest = NodeDrainRequested | NodeDrainEndRequested
AdminRequest = CatalogRequest | ReleaseRequested | NodeRequest


@dataclass(frozen=True, slots=True)
class AdminRequested:
    """An admin request: answered by Acknowledge once its changes are saved, or by Refuse.

    `by` says who or what asked for it, such as the name of an API key, "" if that is unknown.
    """

    ticket: str
    request: AdminRequest
    by: str = ""


@dataclass(frozen=True, slots=True)
class ModelLoadRequested:
    """The model is to be loaded where requests for `name` go: answered by Acknowledge or Refuse."""

    ticket: str
    name: str
    id: model.ModelId


@dataclass(frozen=True, slots=True)
class ModelUnloadRequested:
    """All copies of the model are to be unloaded: answered by Acknowledge or Refuse."""

    ticket: str
    id: model.ModelId


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """All processes are to answer their requests and end; no new ones are to be started."""


@dataclass(frozen=True, slots=True)
class ChangesSaved:
    """The changes of the last SaveChanges are durable."""

    changes: tuple[registry_contents.RegistryChange, ...]


@dataclass(frozen=True, slots=True)
class SaveFailed:
    """The registry could not save the changes of the last SaveChanges; it has none of them."""

    error: errors.MeshError


@dataclass(frozen=True, slots=True)
class SaveStalled:
    """The registry does not say what became of the last SaveChanges; its answer follows later.

    It may have the changes. `reason` tells what the database does.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class LivingWorker:
    """A worker that already ran when the controller started. A ready one has a full catalog."""

    worker_id: str
    settings: desired.WorkerSettings
    endpoint: model.Endpoint
    pid: int
    is_ready: bool = True


@dataclass(frozen=True, slots=True)
class Restored:
    """The first event: the content of the registry, and the processes that run already.

    With `is_config_coming` no process is to be started before the first ConfigApplied is saved.
    """

    changes: tuple[registry_contents.RegistryChange, ...] = ()
    workers: tuple[LivingWorker, ...] = ()
    controller: model.Endpoint | None = None
    is_config_coming: bool = False
    replicas: tuple[llm_spec.LivingReplica, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker's process listens; its catalog is empty."""

    worker_id: str
    endpoint: model.Endpoint
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerSynced:
    """A worker has applied all catalog steps up to this revision."""

    worker_id: str
    revision: int


@dataclass(frozen=True, slots=True)
class SyncFailed:
    """A worker could not apply this catalog step."""

    worker_id: str
    revision: int


@dataclass(frozen=True, slots=True)
class WorkerReported:
    """A worker has reported.

    `revision` is the revision that the mesh took the worker's catalog to have when it asked.
    """

    report: reports.WorkerReport
    revision: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker's process has ended without an order, or did not start (then `pid` is 0)."""

    worker_id: str
    reason: str
    pid: int = 0


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """A worker has answered its requests and ended, after StopWorker."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class CopyEnsured:
    """An EnsureLoaded has ended: with an `error`, or with the model in the worker's memory.

    `copy` is the worker's copy of the model now, None if it has none.
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
    """An Unload has ended: with an `error`, or the copy is freed once no request uses it."""

    worker_id: str
    id: model.ModelId
    error: errors.MeshError | None = None
    copy: reports.CopyReport | None = None
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class Ticked:
    """The timer has fired, as it does every 0.5 s."""


TicketedRequest = AdminRequested | ModelLoadRequested | ModelUnloadRequested
# By the part of the mesh that takes them, so that mypy proves each `match` there to be complete.
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
OwnEvent = Restored | ChangesSaved | SaveFailed | SaveStalled | DrainRequested | Ticked
Event = TicketedRequest | OwnEvent | WorkerEvent | gateway_events.GatewayEvent | llm_events.LlmEvent
