"""The keys of one LLM in config.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from meshserve.config import values
from meshserve.config.sections import Section
from meshserve.core.values import llm_spec


class ReplicasSection(Section):
    """How many engines of one LLM there may be."""

    min: values.Whole = Field(
        default=1,
        ge=0,
        description="At least so many; with 0 the last one goes after `idle_timeout_s`.",
    )
    max: values.Whole | None = Field(
        default=None,
        ge=1,
        description="At most so many, while requests queue. Default: `min`, or 1.",
    )

    @model_validator(mode="after")
    def _are_in_order(self) -> ReplicasSection:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"min is {self.min}, but max only {self.max}")
        return self

    @property
    def most(self) -> int:
        """`max`, where it is given."""
        return self.max or self.min or 1


class AdapterSection(Section):
    """A LoRA adapter of an LLM, which clients call by its name."""

    name: values.ClientName = Field(description="What clients call it.")
    uri: values.Source = Field(
        description="Its folder, or where it is fetched from, as for the LLM itself."
    )


class HeldSection(Section):
    """How much may wait at the gateway for an engine that is not there yet. What is over gets 503 with Retry-After."""

    requests: values.Whole = Field(default=1000, ge=0, description="How many requests for the LLM.")
    bytes: values.PositiveSize = Field(default=64 << 20, description="Their bodies together.")
    wait_s: values.Seconds = Field(default=600.0, description="How long each of them.")

    def limits(self) -> llm_spec.HoldLimits:
        """The same as a value of the core."""
        return llm_spec.HoldLimits(self.requests, self.bytes, self.wait_s)


class LlmSection(Section):
    """A large language model, served by vLLM's engine. Only `name` and `uri` are needed."""

    name: values.Name = Field(description="What clients call it: `model` in the request.")
    uri: values.Source = Field(
        description="A folder of weights (relative to this file), `hf://ORGANISATION/MODEL`, or `s3://`, `gs://`, `az://`."
    )
    aliases: tuple[values.ClientName, ...] = Field(default=(), description="Other names for it.")
    adapters: tuple[AdapterSection, ...] = Field(
        default=(), description="LoRA adapters that are served with it."
    )
    tensor_parallel_size: values.Whole = Field(
        default=1, ge=1, description="How many GPUs each layer is split over."
    )
    pipeline_parallel_size: values.Whole = Field(
        default=1, ge=1, description="How many stages the layers are split into."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where it runs; `auto`: on GPUs where the cluster has any."
    )
    replicas: ReplicasSection = Field(default=ReplicasSection(), description="How many engines.")
    idle_timeout_s: values.Seconds = Field(
        default=300.0,
        description="With `replicas.min: 0`: the last engine goes after so long unused.",
    )
    share: values.Text = Field(
        default="",
        description="LLMs with the same word here take turns on the same GPUs: one is awake, the others sleep.",
    )
    sleep_level: Annotated[Literal[1, 2], values.NotFlag] = Field(
        default=1, description="Asleep, weights stay in host memory (1), or nothing does (2)."
    )
    residency_s_min: values.Duration = Field(
        default=30.0, description="How long it stays awake at least, where it shares."
    )
    engine: dict[str, JsonValue] = Field(
        default={},
        description="Any of vLLM's engine arguments by its name in Python, such as `max_model_len`.",
    )
    cpu_kv_cache: values.PositiveSize = Field(
        default=1 << 30, description="Memory for the KV cache on a CPU."
    )
    start_timeout_s: values.Seconds = Field(
        default=900.0, description="How long a start may take, the weights' download included."
    )
    stall_timeout_s: values.Seconds = Field(
        default=60.0,
        description="How long requests may run without a new token before the engine is restarted.",
    )
    held: HeldSection = Field(
        default=HeldSection(), description="How much waits while no engine is ready."
    )
    runtime: values.Text = Field(
        default="vllm",
        min_length=1,
        description="`vllm`, or a third party's engine (entry points `meshserve.engines`).",
    )

    @model_validator(mode="after")
    def _can_share(self) -> LlmSection:
        if self.share and self.device == "cpu":
            raise ValueError("share needs GPUs: on a CPU engines can't sleep")
        if self.share and self.replicas.most > 1:
            raise ValueError("LLMs that share GPUs have one replica each: leave replicas.max out")
        return self

    def spec(self, device: str) -> llm_spec.LlmSpec:
        """The same as a value of the core; `device` holds where the LLM says `auto`."""
        return llm_spec.LlmSpec(
            name=self.name,
            uri=self.uri,
            aliases=self.aliases,
            adapters=tuple(llm_spec.Adapter(each.name, each.uri) for each in self.adapters),
            tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=self.pipeline_parallel_size,
            replicas_min=self.replicas.min,
            replicas_max=self.replicas.most,
            idle_timeout_s=self.idle_timeout_s,
            share=self.share,
            sleep_level=self.sleep_level,
            residency_s_min=self.residency_s_min,
            device=device if self.device == "auto" else self.device,
            cpu_kv_cache_bytes=self.cpu_kv_cache,
            start_timeout_s=self.start_timeout_s,
            stall_timeout_s=self.stall_timeout_s,
            held=self.held.limits(),
            engine=self.engine,
            runtime=self.runtime,
        )
