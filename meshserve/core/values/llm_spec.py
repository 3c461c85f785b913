"""Large language models: what a user asks for, and what their engines report. Frozen values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from meshserve.core.values import model

ReplicaState = Literal["starting", "ready", "draining", "asleep", "failed"]

ExecutorBackend: TypeAlias = Literal["mp", "ray"]
"""vLLM's `distributed_executor_backend`: processes of one node, or Ray over several."""


class WeightsSource(NamedTuple):
    """Where weights come from; `revision` is a branch, tag or commit at Hugging Face, or empty."""

    uri: str
    revision: str = ""


class Weights(NamedTuple):
    """What tells the files of a model from those that may be at the same place later.

    `content` follows from their names, sizes and bytes, large files being sampled. `times` follows
    from the times of their last changes, which mean something on the machine `host` alone.
    """

    content: str
    host: str = ""
    times: str = ""

    def is_same(self, other: Weights) -> bool:
        """Return whether both were taken from the same files, or from copies on two machines."""
        return self.content == other.content and (
            self.host != other.host or self.times == other.times
        )


def are_same(weights: Weights | None, others: Weights | None) -> bool:
    """Return whether weights are not known to differ; None stands for unknown ones."""
    return weights is None or others is None or weights.is_same(others)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: the name that clients call, and where its weights are.

    With `weights`, only these are served; None serves what is there at the start.
    """

    name: str
    uri: str
    weights: Weights | None = None

    @property
    def source(self) -> WeightsSource:
        """Where its weights come from."""
        return WeightsSource(self.uri)


@dataclass(frozen=True, slots=True)
class HoldLimits:
    """How many requests, and bytes of them, may wait for an LLM that does not serve; how long."""

    requests_max: int = 1000
    bytes_max: int = 64 << 20
    wait_s_max: float = 600.0


@dataclass(frozen=True, slots=True)
class LlmSpec:
    """One LLM as it should be served.

    `runtime` names the kind of engine, and `engine` holds the engine's own arguments: for vLLM by
    their names in Python. With `replicas_min` 0 the last replica stops after `idle_timeout_s`
    without a request. A replica whose requests get no new token for `stall_timeout_s` is restarted.
    With `weights`, replicas start with these alone; None lets them start with what is there.

    LLMs of one `share` group take turns on the same GPUs. One is awake, the others sleep at
    `sleep_level` (1: weights in host memory, 2: nothing kept). No LLM gives way to another one
    before it has been up for `residency_s_min`.
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
    weights: Weights | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that clients may call: its own, its aliases, its adapters."""
        return (self.name, *self.aliases, *(adapter.name for adapter in self.adapters))

    @property
    def gpus(self) -> int:
        """How many GPUs one replica needs."""
        return (
            self.tensor_parallel_size * self.pipeline_parallel_size if self.device == "cuda" else 0
        )

    @property
    def source(self) -> WeightsSource:
        """Where its own weights come from."""
        revision = self.engine.get("revision")
        return WeightsSource(self.uri, revision if isinstance(revision, str) else "")

    @property
    def sources(self) -> tuple[WeightsSource, ...]:
        """Where its weights and those of its adapters come from."""
        return (self.source, *(adapter.source for adapter in self.adapters))

    def with_weights(self, weights: Mapping[WeightsSource, Weights]) -> LlmSpec:
        """Return the spec with the weights by their source; those left out are unknown."""
        adapters = (
            dataclasses.replace(adapter, weights=weights.get(adapter.source))
            for adapter in self.adapters
        )
        return dataclasses.replace(self, weights=weights.get(self.source), adapters=tuple(adapters))

    def has_same_adapters(self, other: LlmSpec) -> bool:
        """Return whether both have the same adapters, with the same weights as far as known."""
        return len(self.adapters) == len(other.adapters) and all(
            dataclasses.replace(adapter, weights=own.weights) == own
            and are_same(own.weights, adapter.weights)
            for own, adapter in zip(self.adapters, other.adapters, strict=True)
        )

    def is_same_engine(self, other: LlmSpec) -> bool:
        """Return whether an engine that was started for this spec can serve the other one too.

        The specs may differ in what engines never see: aliases, when replicas run, what may wait;
        and in what a running replica can be told: adapters, `stall_timeout_s`.
        """
        return are_same(self.weights, other.weights) and self == dataclasses.replace(
            other,
            # Compared above, where weights that are not known count as equal.
            weights=self.weights,
            aliases=self.aliases,
            adapters=self.adapters,
            stall_timeout_s=self.stall_timeout_s,
            replicas_min=self.replicas_min,
            replicas_max=self.replicas_max,
            idle_timeout_s=self.idle_timeout_s,
            residency_s_min=self.residency_s_min,
            # Each order to sleep names its level.
            sleep_level=self.sleep_level,
            start_timeout_s=self.start_timeout_s,
            held=self.held,
        )


class NodeCapacity(NamedTuple):
    """The GPUs and cores of one node for engines. `gpus_free` leaves out those of `replicas`."""

    node: str
    gpus: int
    gpus_free: int
    cores: int = 0
    replicas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """Where one replica's processes go.

    `bundles` has the number of GPUs of each placement bundle; without any, the replica runs on
    CPUs. `node` is the node of all bundles, "" if Ray may choose, but none of `avoided`.
    """

    bundles: tuple[int, ...] = ()
    backend: ExecutorBackend = "mp"
    node: str = ""
    avoided: tuple[str, ...] = ()


class LlmReport(NamedTuple):
    """One replica at one moment.

    `running` and `waiting` are requests now; `requests` and `tokens` count from the engine's
    start. `kv_used` is the used share of the KV cache, 0 to 1. `stalled_s` says for how long
    requests have run without a new token, 0 while they advance or none runs. `max_model_len` is
    the most tokens of a request and its answer, 0 while it is unknown. `can_change_adapters` says
    whether the engine takes others while it runs. `memory_bytes` is what its processes take of the
    machine's memory, `memory_free_bytes` what the machine has left; both are 0 while unknown.
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
    max_model_len: int = 0
    can_change_adapters: bool = False
    memory_bytes: int = 0
    memory_free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LivingReplica:
    """A replica that already runs when the controller begins."""

    replica_id: str
    spec: LlmSpec
    endpoint: model.Endpoint
    pid: int
    is_asleep: bool = False
