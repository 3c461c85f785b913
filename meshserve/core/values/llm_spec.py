"""Large language models: what a user asks for, and what their engines tell. Frozen values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from meshserve.core.values import model

ReplicaState = Literal["starting", "ready", "draining", "asleep", "failed"]

ExecutorBackend: TypeAlias = Literal["mp", "ray"]
"""vLLM's `distributed_executor_backend`: processes of one node, or Ray over several."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: a name that clients call, and where its weights are."""

    name: str
    uri: str


@dataclass(frozen=True, slots=True)
class HoldLimits:
    """How much may wait for an engine that is not there: requests, their bytes together, and how long each."""

    requests_max: int = 1000
    bytes_max: int = 64 << 20
    wait_s_max: float = 600.0


@dataclass(frozen=True, slots=True)
class LlmSpec:
    """One LLM, as it should be served. `engine` holds vLLM's own arguments by their names in Python; `runtime` names the kind of engine.

    `replicas_min` 0 lets the last engine go after `idle_timeout_s` without a request. LLMs of one `share` group take turns on the same
    GPUs: one is awake, the others sleep at `sleep_level` (1: weights in host memory, 2: nothing kept), and none is put to sleep within
    `residency_s_min` of having come up. `stall_timeout_s`: how long requests may run without a new token.
    """

    name: str
    uri: str
    aliases: tuple[str, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    replicas_min: int = 1
    replicas_max: int = 1
    idle_timeout_s: float = 300.0
    share: str = ""
    sleep_level: int = 1
    residency_s_min: float = 30.0
    device: str = "cuda"
    cpu_kv_cache_bytes: int = 1 << 30
    start_timeout_s: float = 900.0
    stall_timeout_s: float = 60.0
    held: HoldLimits = HoldLimits()
    engine: Mapping[str, object] = field(default_factory=dict)
    runtime: str = "vllm"

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that clients may call: its own, its aliases, its adapters."""
        return (self.name, *self.aliases, *(adapter.name for adapter in self.adapters))

    @property
    def gpus(self) -> int:
        """How many GPUs one replica takes."""
        return (
            self.tensor_parallel_size * self.pipeline_parallel_size if self.device == "cuda" else 0
        )


class NodeCapacity(NamedTuple):
    """What one node has for engines: all its GPUs, and those that nobody holds now.

    `replicas` are those that are known to hold GPUs of it, so that these are not counted as still to be taken.
    """

    node: str
    gpus: int
    gpus_free: int
    cores: int = 0
    replicas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """Where one replica's processes go: a bundle of GPUs for each entry of `bundles`; no bundles: on the CPU of any node.

    `backend` is vLLM's `distributed_executor_backend`. `node` names the node where all of it must be; empty: Ray chooses.
    """

    bundles: tuple[int, ...] = ()
    backend: ExecutorBackend = "mp"
    node: str = ""


class LlmReport(NamedTuple):
    """One replica at one moment. Counts are since its engine began, but for `running` and `waiting`, which are requests now.

    `stalled_s`: for how long requests have run without a new token (0: they advance, or there are none).
    """

    replica_id: str
    running: int = 0
    waiting: int = 0
    requests: int = 0
    tokens: int = 0
    tokens_per_s: float = 0.0
    ttft_p50_s: float = 0.0
    ttft_p95_s: float = 0.0
    kv_used: float = 0.0
    stalled_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LivingReplica:
    """A replica that runs while the controller begins."""

    replica_id: str
    spec: LlmSpec
    endpoint: model.Endpoint
    pid: int
    is_asleep: bool = False
