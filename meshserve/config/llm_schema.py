"""The keys of one LLM in config.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from meshserve import errors
from meshserve.config import fields
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import llm_spec


class ReplicasSection(fields.Section):
    """How many engines of one LLM may run."""

    min: fields.Natural = 1
    """The least number; with 0 the last engine ends after `idle_timeout_s`."""
    max: fields.Count | None = None
    """The largest number, reached only while requests queue. Default: `min`, or 1."""

    @model_validator(mode="after")
    def _are_in_order(self) -> ReplicasSection:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"min is {self.min}, but max only {self.max}")
        return self

    @property
    def largest(self) -> int:
        """`max`, or its default."""
        return self.max or self.min or 1


class AdapterSection(fields.Section):
    """A LoRA adapter of an LLM, which clients call by its name."""

    name: fields.ClientName
    """What clients call it."""
    uri: fields.Source
    """The folder of its weights, or a URI, as for the LLM itself."""


class HeldSection(fields.Section):
    """Limits for requests that wait while no engine is ready; beyond them clients get 503."""

    requests: fields.Natural = 1000
    """How many requests for the LLM may wait."""
    bytes: fields.PositiveSize = 64 << 20
    """How large their bodies may be together."""
    wait_s: fields.Seconds = 600.0
    """How long each request may wait."""

    def limits(self) -> llm_spec.HoldLimits:
        """Return these limits as the core's value."""
        return llm_spec.HoldLimits(self.requests, self.bytes, self.wait_s)


class LlmSection(fields.Section):
    """A large language model, served by vLLM's engine. Only `name` and `uri` are needed."""

    name: fields.ClientName
    """What clients call it: `model` in the request."""
    uri: fields.Source
    """A folder of weights (relative to this file), `hf://ORGANISATION/MODEL`, or `s3://`, `gs://`,
    `az://`."""
    aliases: tuple[fields.ClientName, ...] = ()
    """Other names for it."""
    adapters: tuple[AdapterSection, ...] = ()
    """LoRA adapters that are served with it."""
    tensor_parallel_size: fields.Count = 1
    """How many GPUs each layer is split over."""
    pipeline_parallel_size: fields.Count = 1
    """How many stages the layers are split into."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; `auto`: on GPUs where the cluster has any."""
    replicas: ReplicasSection = ReplicasSection()
    """How many engines."""
    idle_timeout_s: fields.Seconds = 300.0
    """With `replicas.min: 0`: the last engine ends after this long without use."""
    share: fields.Text = ""
    """LLMs with the same word here take turns on the same GPUs: one is awake, the others sleep."""
    sleep_level: Annotated[Literal[1, 2], fields.NotFlag] = 1
    """Whether a sleeping LLM keeps its weights in host memory (1) or keeps nothing (2)."""
    residency_s_min: fields.Duration = 30.0
    """With `share`: how long it stays awake before another LLM may take the GPUs."""
    # Nothing but JSON, because the configuration travels to the controller as JSON.
    engine: dict[str, fields.Json] = {}  # noqa: RUF012 - pydantic copies it
    """Any of vLLM's engine arguments by its name in Python, such as `max_model_len`."""
    cpu_kv_cache: fields.PositiveSize = 1 << 30
    """Memory for the KV cache on a CPU."""
    start_timeout_s: fields.Seconds = 900.0
    """How long a start may take, the weights' download included."""
    stall_timeout_s: fields.Seconds = 60.0
    """How long requests may run without a new token before the engine is restarted."""
    held: HeldSection = HeldSection()
    """How many requests may wait while no engine is ready, and how long."""
    runtime: fields.Text = Field(default="vllm", min_length=1)
    """`vllm`, or a third party's engine (entry points `meshserve.engines`)."""

    @model_validator(mode="after")
    def _can_share(self) -> LlmSection:
        if self.share and self.device == "cpu":
            raise ValueError("share needs GPUs: on a CPU engines can't sleep")
        if self.share and self.replicas.largest > 1:
            raise ValueError("LLMs that share GPUs have one replica each: leave replicas.max out")
        return self

    def spec_on(self, capacity: cluster_control.WorkerCapacity) -> llm_spec.LlmSpec:
        """Return the core's spec of the LLM; `device: auto` is `cuda` if the cluster has a GPU.

        Raises ConfigInvalid if the LLM shares GPUs and the cluster has none.
        """
        # Decided here and not in the schema: only the controller knows what the cluster has.
        device = ("cuda" if capacity.gpus else "cpu") if self.device == "auto" else self.device
        if self.share and device == "cpu":
            raise errors.ConfigInvalid(
                f"LLM {self.name!r} shares GPUs with others, but the cluster has no GPU: "
                "leave share out"
            )
        return llm_spec.LlmSpec(
            name=self.name,
            uri=self.uri,
            aliases=self.aliases,
            adapters=tuple(
                llm_spec.Adapter(adapter.name, adapter.uri) for adapter in self.adapters
            ),
            tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=self.pipeline_parallel_size,
            replicas_min=self.replicas.min,
            replicas_max=self.replicas.largest,
            idle_timeout_s=self.idle_timeout_s,
            share=self.share,
            sleep_level=self.sleep_level,
            residency_s_min=self.residency_s_min,
            device=device,
            cpu_kv_cache_bytes=self.cpu_kv_cache,
            start_timeout_s=self.start_timeout_s,
            stall_timeout_s=self.stall_timeout_s,
            held=self.held.limits(),
            engine=self.engine,
            runtime=self.runtime,
        )
