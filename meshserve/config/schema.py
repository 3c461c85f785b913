"""The keys of config.yaml: the one place where settings are named, described, defaulted and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, ValidationInfo, model_validator

from meshserve.config import diagnostics, llm_schema, values
from meshserve.config.sections import Section
from meshserve.core.values import model, snapshots

DEFAULT_POOL = "default"


def home() -> Path:
    """The state directory where nothing else is said: `MESHSERVE_HOME`, or `~/.meshserve`."""
    return Path(os.environ.get("MESHSERVE_HOME") or "~/.meshserve").expanduser().absolute()


class KeySection(Section):
    """A client's credential: either the key itself or the environment variable that holds it."""

    client: values.Name = Field(
        description="Who uses the key; the name appears in logs and metrics."
    )
    key: values.Text = Field(
        default="",
        min_length=1,
        validate_default=False,
        description="The secret itself. Give this or `key_env`.",
        repr=False,
    )
    key_env: values.Text | None = Field(
        default=None,
        description="The environment variable that holds the secret, read when `meshserve up` starts.",
    )
    admin: values.Flag = Field(
        default=False, description="Whether the client may use the management paths."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_environment(cls, given: Any, info: ValidationInfo) -> Any:
        variable = given.get("key_env") if isinstance(given, dict) else None
        if not isinstance(variable, str):
            return given
        if "key" in given:
            raise ValueError("give key or key_env, not both")
        secret = (info.context or {}).get("environ", os.environ).get(variable)
        if not secret:
            raise ValueError(f"key_env: the environment variable {variable} is not set")
        return {**given, "key": secret, "key_env": None}

    @model_validator(mode="after")
    def _has_key(self) -> KeySection:
        if not self.key:
            raise ValueError("give key or key_env")
        return self


class GatewaySection(Section):
    """The one port that clients see."""

    listen: values.Address = Field(
        default="127.0.0.1:8080",
        description="HOST:PORT for gRPC and REST alike; 0.0.0.0 as host listens on every interface.",
    )
    request_bytes_max: values.PositiveSize = Field(
        default=64 << 20, description="The biggest request that is accepted."
    )
    keys: tuple[KeySection, ...] = Field(
        default=(), description="API keys. Without any, every client may do everything."
    )


class RegistrySection(Section):
    """Where registered models are remembered."""

    url: values.Database | None = Field(
        default=None,
        description="`sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`. Default: `registry.db` in `state_dir`.",
    )


class CacheSection(Section):
    """Where fetched artifacts are kept on each node."""

    path: values.Place | None = Field(
        default=None, description="The folder. Default: `cache` in `state_dir`."
    )
    size: values.PositiveSize = Field(
        default=20 << 30, description="How much is kept; what was used longest ago goes first."
    )
    artifact_bytes_max: values.PositiveSize = Field(
        default=10 << 30, description="The biggest single artifact that is fetched."
    )


class PoolSection(Section):
    """Workers that hold many small models."""

    workers: values.Workers = Field(
        default="auto",
        description="How many worker processes; `auto` chooses by the cores there are.",
    )
    memory: values.PositiveSize = Field(
        default=4 << 30, description="Host memory that one worker may use for models."
    )
    gpu_memory: values.Size = Field(
        default=0,
        description="GPU memory that one worker may use for models; needed with `device: cuda`.",
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where models run.")
    eviction: Literal["gdsf", "lru"] = Field(
        default="gdsf",
        description="Who leaves when memory is short: `gdsf` weighs uses, load time and size; `lru` is the least recently used.",
    )
    allocator: Literal["jemalloc", "system"] = Field(
        default="jemalloc",
        description="Who hands out memory in a worker. `jemalloc`, if Ray has it, leaves fewer gaps; `system` is the C library.",
    )
    idle_unload_s: values.Seconds | None = Field(
        default=None, description="Unload a model that nobody used for so long. Default: never."
    )
    loads_parallel: values.Whole = Field(
        default=4, ge=1, description="How many models one worker loads at the same time."
    )
    queue_max: values.Whole = Field(
        default=1000, ge=1, description="How many requests one worker holds before it answers 429."
    )
    load_timeout_s: values.Seconds = Field(
        default=120.0, description="How long a load may take before it counts as failed."
    )
    copies_max: values.Whole = Field(
        default=8,
        ge=1,
        description="On how many workers a model may be at once that one worker is not enough for. 1: on one.",
    )

    @model_validator(mode="after")
    def _fits_device(self) -> PoolSection:
        if self.device == "cuda" and not self.gpu_memory:
            raise ValueError(
                "device: cuda needs gpu_memory, the bytes of GPU memory for each worker, for example gpu_memory: 8GiB"
            )
        if self.device == "cpu" and self.gpu_memory:
            raise ValueError("gpu_memory is only used with device: cuda")
        return self


class TensorSection(Section):
    """One input or output of a model."""

    name: values.Name = Field(description="Its name on the wire.")
    datatype: values.Datatype = Field(description="A word of the Open Inference Protocol.")
    shape: tuple[Annotated[values.Whole, Field(ge=-1)], ...] = Field(
        description="Its dimensions with the batch first; -1 is any size."
    )

    def spec(self) -> model.TensorSpec:
        """The same as a value of the core."""
        return model.TensorSpec(self.name, self.datatype, self.shape)


class ModelSection(Section):
    """A model that is served. Only `name` and `uri` are needed."""

    name: values.Name = Field(description="What clients call it.")
    uri: values.Source = Field(
        description="A file or folder (relative to this file), or `https://`, `s3://`, `gs://`, `az://`."
    )
    version: values.Version = Field(
        default="1", description="Its version; where a client names none, the newest is served."
    )
    runtime: values.Text = Field(
        default="",
        description="`onnx`, `torch`, `sklearn`, `xgboost`, `lightgbm`, `python` or a third party's. Default: told from the files.",
    )
    pool: values.Text = Field(default=DEFAULT_POOL, description="The pool that serves it.")
    pinned: values.Flag = Field(default=False, description="Load it at once and never evict it.")
    trust: values.Flag = Field(
        default=False, description="Allow artifacts that are code: pickle, joblib, Python."
    )
    checksum: values.Text = Field(
        default="",
        pattern=values.CHECKSUM,
        description="`sha256:<hex>` that the fetched bytes must have.",
    )
    load_timeout_s: values.Seconds | None = Field(
        default=None, description="How long its load may take. Default: its pool's."
    )
    batching: values.Flag = Field(
        default=True,
        description="Whether requests that arrive together may be run together, where the model can.",
    )
    max_batch_size: values.Whole = Field(
        default=256, ge=1, description="How many rows are run together at most."
    )
    inputs: tuple[TensorSection, ...] = Field(
        default=(), description="Its inputs, where the files can't tell."
    )
    outputs: tuple[TensorSection, ...] = Field(
        default=(), description="Its outputs, where the files can't tell."
    )
    options: dict[str, JsonValue] = Field(
        default={}, description="Anything its runtime understands."
    )
    aliases: tuple[values.Name, ...] = Field(
        default=(), description="Other names for this version."
    )

    def spec(self, load_timeout_s: float, origin: model.Origin) -> model.ModelSpec:
        """The same as a value of the core; `load_timeout_s` holds where the model has none of its own."""
        return model.ModelSpec(
            id=model.ModelId(self.name, self.version),
            uri=self.uri,
            runtime=self.runtime,
            pool=self.pool,
            pinned=self.pinned,
            trust=self.trust,
            checksum=self.checksum,
            load_timeout_s=self.load_timeout_s or load_timeout_s,
            batching=self.batching,
            max_batch_size=self.max_batch_size,
            inputs=tuple(tensor.spec() for tensor in self.inputs),
            outputs=tuple(tensor.spec() for tensor in self.outputs),
            options=self.options,
            origin=origin,
        )


class RepositorySection(Section):
    """A place with one folder for each model and its versions as sub-folders, or one file for each model."""

    path: values.Folder | None = Field(
        default=None, description="A local folder. Give this or `uri`."
    )
    uri: values.Source | None = Field(
        default=None, description="A folder elsewhere, such as `s3://bucket/models`."
    )
    watch: values.Flag = Field(
        default=True, description="Whether changes are taken over while the mesh runs."
    )
    pool: values.Text = Field(default=DEFAULT_POOL, description="The pool that serves its models.")
    trust: values.Flag = Field(
        default=False, description="Allow models that are code: pickle, joblib, Python."
    )

    @model_validator(mode="after")
    def _has_one_place(self) -> RepositorySection:
        if (self.path is None) == (self.uri is None):
            raise ValueError("give path or uri, and not both")
        return self


def _with_default(pools: dict[str, PoolSection]) -> dict[str, PoolSection]:
    return pools if DEFAULT_POOL in pools else {DEFAULT_POOL: PoolSection(), **pools}


class Config(Section):
    """A whole config.yaml. Every path in it is absolute."""

    gateway: GatewaySection = Field(
        default=GatewaySection(), description="Where clients connect, and who may."
    )
    registry: RegistrySection = Field(
        default=RegistrySection(), description="The database that outlives the mesh."
    )
    state_dir: values.Place = Field(
        default_factory=home,
        description="Where the mesh keeps its state on this machine. Default: `MESHSERVE_HOME`, or `~/.meshserve`.",
    )
    cache: CacheSection = Field(
        default=CacheSection(), description="The disk that fetched artifacts may use."
    )
    pools: Annotated[dict[values.PoolName, PoolSection], AfterValidator(_with_default)] = Field(
        default={},
        description="Groups of workers by name. The one named `default` is always there.",
    )
    models: tuple[ModelSection, ...] = Field(default=(), description="The models to serve.")
    repositories: tuple[RepositorySection, ...] = Field(
        default=(), description="Folders whose models are all served."
    )
    llms: tuple[llm_schema.LlmSection, ...] = Field(
        default=(),
        description="Large language models, each in a process of its own with its own GPUs.",
    )

    @property
    def registry_url(self) -> str:
        """The registry's database, as a URL for SQLAlchemy."""
        return self.registry.url or f"sqlite:///{self.state_dir / 'registry.db'}"

    @property
    def cache_path(self) -> Path:
        """The folder of fetched artifacts."""
        return self.cache.path or self.state_dir / "cache"

    def model_specs(self) -> tuple[tuple[model.ModelSpec, tuple[str, ...]], ...]:
        """Every model as a value of the core with its aliases, in the file's order."""
        return tuple(
            (entry.spec(self.pools[entry.pool].load_timeout_s, model.FROM_CONFIG), entry.aliases)
            for entry in self.models
        )

    def api_keys(self) -> tuple[snapshots.ApiKey, ...]:
        """The clients' credentials, as the gateway takes them."""
        return tuple(snapshots.ApiKey(key.client, key.key, key.admin) for key in self.gateway.keys)


PARTS: Mapping[tuple[type[Section], str | int], type[Section]] = {
    (Config, "gateway"): GatewaySection,
    (Config, "registry"): RegistrySection,
    (Config, "cache"): CacheSection,
    (Config, "pools"): PoolSection,
    (Config, "models"): ModelSection,
    (Config, "repositories"): RepositorySection,
    (Config, "llms"): llm_schema.LlmSection,
    (GatewaySection, "keys"): KeySection,
    (ModelSection, "inputs"): TensorSection,
    (ModelSection, "outputs"): TensorSection,
    (llm_schema.LlmSection, "replicas"): llm_schema.ReplicasSection,
    (llm_schema.LlmSection, "adapters"): llm_schema.AdapterSection,
    (llm_schema.LlmSection, "held"): llm_schema.HeldSection,
}


def known_keys(root: type[Section], path: diagnostics.Path) -> tuple[str, ...]:
    """The keys that may stand in the section at `path` under `root`."""
    section = root
    for part in path:
        section = PARTS.get((section, part), section)
    return tuple(section.model_fields)
