"""The commands of the mesh. Commands for one process are performed in the order of decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshserve import errors
from meshserve.core.values import (
    catalog_sync,
    desired,
    llm_spec,
    model,
    registry_contents,
    reports,
)

ProcessKind = Literal["worker", "gateway", "replica"]


@dataclass(frozen=True, slots=True)
class SaveChanges:
    """Make the changes durable, all or none: answered by ChangesSaved or SaveFailed.

    The next SaveChanges follows only after the answer. `words` tell users what changes, and
    `by` says who or what asked for it, such as the name of an API key, "" if that is unknown.
    """

    changes: tuple[registry_contents.RegistryChange, ...]
    words: tuple[str, ...] = ()
    by: str = ""


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Answer a ticketed request: it is done. `words` tell users what it has changed."""

    ticket: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a ticketed request: it is refused, or has failed."""

    ticket: str
    error: errors.MeshError


@dataclass(frozen=True, slots=True)
class Watch:
    """Ask the process for reports from now on, and notice its end. `pid` is 0 for a gateway."""

    kind: ProcessKind
    id: str
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Unwatch:
    """Stop watching a process that has ended. `reason`: why it was lost, "" if it was to end."""

    kind: ProcessKind
    id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RememberMeasured:
    """Save measurements of models; not answered, because losing them costs only a measurement."""

    learned: tuple[reports.LearnedMeasurement, ...]


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start the worker's process: answered by WorkerStarted or WorkerLost.

    It must not be on one of the nodes `avoided`, which are being drained.
    """

    worker_id: str
    settings: desired.WorkerSettings
    avoided: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Let the worker finish its requests and end: answered by WorkerStopped.

    `reason` says why it is replaced, empty if it is not wanted any more.
    """

    worker_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AbandonWorker:
    """Drop the commands that wait for a worker whose process was lost."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class SendChanges:
    """Apply a step to the worker's catalog: answered by WorkerSynced or SyncFailed."""

    worker_id: str
    step: catalog_sync.SyncStep


@dataclass(frozen=True, slots=True)
class EnsureLoaded:
    """Have the worker load the model: answered by CopyEnsured with the same ticket."""

    worker_id: str
    id: model.ModelId
    # That of the model's declaration, 0 if the model was withdrawn meanwhile.
    timeout_s: float
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class Unload:
    """Have the worker drop its copy of the model: answered by CopyUnloaded."""

    worker_id: str
    id: model.ModelId
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class Pin:
    """Pin the model on the worker: its copy stays in memory, from its next load if it has none."""

    worker_id: str
    id: model.ModelId


@dataclass(frozen=True, slots=True)
class Unpin:
    """Unpin the model on the worker: its copy may be evicted."""

    worker_id: str
    id: model.ModelId


@dataclass(frozen=True, slots=True)
class StartGateway:
    """Start the node's gateway with its snapshot.

    Answered by GatewayReported and GatewayConfigured, or by GatewayLost.
    """

    node: str


@dataclass(frozen=True, slots=True)
class ConfigureGateway:
    """Configure the node's gateway: answered by GatewayConfigured once it serves by the snapshot.

    The snapshot is that of the moment when the command is performed, so commands that wait in the
    queue become one.
    """

    node: str


@dataclass(frozen=True, slots=True)
class StopGateway:
    """Let the node's gateway finish its requests and end: answered by GatewayStopped."""

    node: str


@dataclass(frozen=True, slots=True)
class StartReplica:
    """Start a replica on the GPUs of the plan: answered by ReplicaReady or ReplicaLost."""

    replica_id: str
    spec: llm_spec.LlmSpec
    plan: llm_spec.ReplicaPlan


@dataclass(frozen=True, slots=True)
class StopReplica:
    """Let the replica finish its requests and end, or abort its start or wake.

    Ordered once no gateway sends requests to the replica. Answered by ReplicaStopped even if the
    replica is lost meanwhile.
    """

    replica_id: str


@dataclass(frozen=True, slots=True)
class UpdateReplica:
    """Have a replica that serves follow a spec with other adapters: answered by ReplicaUpdated."""

    replica_id: str
    spec: llm_spec.LlmSpec


@dataclass(frozen=True, slots=True)
class SleepReplica:
    """Let the replica finish its requests and sleep: answered by ReplicaSlept or ReplicaLost."""

    replica_id: str
    level: int


@dataclass(frozen=True, slots=True)
class WakeReplica:
    """Wake the replica: answered by ReplicaWoken or ReplicaLost."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class Admit:
    """Let the gateway pass the held request on: all gateways know a ready replica, or worker."""

    ticket: str


@dataclass(frozen=True, slots=True)
class TurnAway:
    """Answer the held request with HTTP 503, the reason, and Retry-After: `retry_after_s`.

    With `is_unknown` the answer is 404: there is no such model.
    """

    ticket: str
    reason: str
    retry_after_s: float
    is_unknown: bool = False


@dataclass(frozen=True, slots=True)
class EndNode:
    """Have Ray drain the node, on which nothing of the mesh runs any more: its Ray ends.

    Not answered: the node leaves the cluster.
    """

    node: str


WorkerCommand = (
    StartWorker | StopWorker | AbandonWorker | SendChanges | EnsureLoaded | Unload | Pin | Unpin
)
GatewayCommand = StartGateway | ConfigureGateway | StopGateway
ReplicaCommand = StartReplica | StopReplica | UpdateReplica | SleepReplica | WakeReplica
HeldCommand = Admit | TurnAway
RegistryCommand = SaveChanges | RememberMeasured
AnswerCommand = Acknowledge | Refuse
MonitorCommand = Watch | Unwatch
NodeCommand = EndNode
Command = (
    RegistryCommand
    | AnswerCommand
    | MonitorCommand
    | NodeCommand
    | WorkerCommand
    | GatewayCommand
    | ReplicaCommand
    | HeldCommand
)

Outbox = list[Command]
"""Commands in the order of their decision: the parts of a mesh append, `Mesh.handle` drains."""
