"""What happens to the replicas of LLMs and to held requests: events that the mesh handles."""

from __future__ import annotations

from dataclasses import dataclass

from meshserve.core.values import llm_spec, model


@dataclass(frozen=True, slots=True)
class RequestHeld:
    """A request for an LLM waits at a gateway: answered by Admit or TurnAway.

    `name` is any of the LLM's names, `size_bytes` the length of the body that the gateway holds.
    With `is_small` it is for a model of a pool that has no worker.
    """

    ticket: str
    name: str
    size_bytes: int
    is_small: bool = False


@dataclass(frozen=True, slots=True)
class HeldRequestLeft:
    """A held request needs no answer any longer: its client has disconnected."""

    ticket: str


@dataclass(frozen=True, slots=True)
class ReplicaReady:
    """A replica has started and generated a first token, `took_s` seconds after StartReplica."""

    replica_id: str
    endpoint: model.Endpoint
    pid: int
    took_s: float


@dataclass(frozen=True, slots=True)
class ReplicaReported:
    """A replica has reported."""

    report: llm_spec.LlmReport


@dataclass(frozen=True, slots=True)
class ReplicaLost:
    """A replica's process or engine ended without an order, or did not start, wake or fall asleep.

    `pid` is 0 if no process was started. `is_permanent`: a further try would end alike until
    something is changed.
    """

    replica_id: str
    reason: str
    pid: int = 0
    is_permanent: bool = False


@dataclass(frozen=True, slots=True)
class ReplicaUpdated:
    """A replica follows another spec, or goes on as before for a `reason`, after UpdateReplica."""

    replica_id: str
    spec: llm_spec.LlmSpec
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaStopped:
    """A replica has answered its requests and ended, after StopReplica: its GPUs are free."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class ReplicaSlept:
    """A replica has answered its requests and is asleep, after SleepReplica."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class ReplicaWoken:
    """A replica is awake and has generated a token, `took_s` seconds after WakeReplica."""

    replica_id: str
    took_s: float


@dataclass(frozen=True, slots=True)
class CapacitySeen:
    """The GPUs and memory that the cluster's nodes have for engines."""

    nodes: tuple[llm_spec.NodeCapacity, ...]


LlmEvent = (
    RequestHeld
    | HeldRequestLeft
    | ReplicaReady
    | ReplicaReported
    | ReplicaLost
    | ReplicaStopped
    | ReplicaSlept
    | ReplicaUpdated
    | ReplicaWoken
    | CapacitySeen
)
