"""The sections of config.yaml: every key with its type, default, description and checks.

Each section also builds the core's value from its keys, so a new key needs a change of one file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    model_validator,
)

from meshserve import errors
from meshserve.config import (
    diagnostics,
    fields,
    kubernetes_schema,
    llm_schema,
    model_schema,
    workers_schema,
)
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import desired, model, snapshots

DEFAULT_POOL = desired.DEFAULT_POOL
WORKERS_AUTO_MAX = 16


def home() -> Path:
    """Return the default state directory: `MESHSERVE_HOME`, or `~/.meshserve`."""
    return Path(os.environ.get("MESHSERVE_HOME") or "~/.meshserve").expanduser().absolute()


class KeySection(fields.Section):
    """A client's credential: either the key itself or the environment variable that holds it."""

    client: fields.Name
    """Who uses the key; the name appears in the logs, and in the events of what it changes."""
    # The empty default is not checked: `_has_key` says in better words what is missing.
    key: fields.Text = Field(default="", min_length=1, validate_default=False, repr=False)
    """The secret itself. Give this or `key_env`."""
    key_env: fields.Text | None = None
    """The environment variable that holds the secret, read when `meshserve up` starts."""
    admin: fields.Flag = False
    """Whether the client may use the management paths."""

    # Read now, because the controller may run on another machine, without these variables.
    @model_validator(mode="before")
    @classmethod
    def _read_environment(cls, content: Any, info: ValidationInfo) -> Any:
        variable = content.get("key_env") if isinstance(content, dict) else None
        if not isinstance(variable, str):
            return content
        if "key" in content:
            raise ValueError("give key or key_env, not both")
        secret = (info.context or {}).get("environ", os.environ).get(variable)
        if not secret:
            raise ValueError(f"key_env: the environment variable {variable} is not set")
        return {**content, "key": secret, "key_env": None}

    @model_validator(mode="after")
    def _has_key(self) -> KeySection:
        if not self.key:
            raise ValueError("give key or key_env")
        return self


class GatewayPlacementSection(fields.Section):
    """The nodes of a cluster that have a gateway."""

    labels: dict[fields.LabelKey, fields.LabelValue] = {}  # noqa: RUF012 - pydantic copies it
    """Labels that a node must have, as for pools. Default: every node has one."""


class GatewaySection(fields.Section):
    """The one port that clients see."""

    listen: fields.Address = "127.0.0.1:8080"
    """HOST:PORT for gRPC and REST alike; 0.0.0.0 as host listens on every interface."""
    request_bytes_max: fields.PositiveSize = 64 << 20
    """The biggest request that is accepted."""
    keys: tuple[KeySection, ...] = ()
    """API keys. Without any, every client may do everything."""
    cors_origins: tuple[fields.Origin, ...] = ()
    """Origins of web pages that may call the mesh, such as `https://shop.example`; `"*"`: all."""
    file_roots: tuple[fields.AbsolutePath, ...] | None = None
    """Folders of the mesh's machines whose files clients may register as models, links resolved;
    `[/]`: all; `[]`: none, they register URIs, and upload. Default: all without `keys` on a
    loopback address, else none. This file, repositories and the command line beside the mesh's
    state directory may name any file."""
    placement: GatewayPlacementSection = GatewayPlacementSection()
    """Which nodes of a cluster have a gateway; see below."""
    native: fields.Switch = "off"
    """`auto`: requests go to workers as frames, by a module of Envoy in C that a gateway compiles
    when it starts, where there is a C compiler; `meshserve status` says where not. `off`: HTTP."""

    def settings(self) -> desired.GatewaySettings:
        """Return the gateway's settings as the core's value."""
        keys = tuple(snapshots.ApiKey(key.client, key.key, key.admin) for key in self.keys)
        return desired.GatewaySettings(
            *(self.listen, self.request_bytes_max, keys, self.cors_origins, self._file_roots()),
            is_native=self.native == "auto",
            labels=tuple(sorted(self.placement.labels.items())),
        )

    def _file_roots(self) -> tuple[str, ...]:
        if self.file_roots is not None:
            return tuple(str(root) for root in self.file_roots)
        # Whoever gets there is a user of this machine, and an admin, whose code may read any file.
        is_open = not self.keys and fields.is_loopback(self.listen)
        return ("/",) if is_open else ()


class RegistrySection(fields.Section):
    """Where registered models are remembered."""

    url: fields.Database | None = None
    """`sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`. Default: `registry.db` in
    `state_dir`."""


class CacheSection(fields.Section):
    """Where fetched artifacts are kept on each node."""

    path: fields.AbsolutePath | None = None
    """The folder. Default: `cache` in `state_dir`."""
    size: fields.PositiveSize = 20 << 30
    """The largest total size; artifacts used longest ago are removed first. Loaded ones of more
    than a quarter of it come on top."""
    artifact_bytes_max: fields.PositiveSize = 10 << 30
    """The biggest single artifact that is fetched."""


class RaySection(fields.Section):
    """The Ray cluster that `meshserve up` starts where it joins none. Read at the mesh's start."""

    dashboard: fields.Flag = False
    """Start Ray's dashboard, on http://127.0.0.1:8265 or the next free port. It needs `pip install
    'ray[default]'`."""


class PlacementSection(fields.Section):
    """The nodes of a cluster on which a pool's workers run."""

    labels: dict[fields.LabelKey, fields.LabelValue] = {}  # noqa: RUF012 - pydantic copies it
    """Labels that a node must have, as Ray knows them: `ray start --labels=KEY=VALUE`. Default:
    any node will do."""
    strategy: Literal["spread", "pack"] = "spread"
    """`spread`: the workers are on as many nodes as possible, so that the loss of one takes few.
    `pack`: on as few as possible, so that others stay free."""


class LoggingSection(fields.Section):
    """What the mesh writes to `logs` in `state_dir`. Changes count from the next start on."""

    format: Literal["text", "json"] = "text"
    """`text` for people; `json` has one object a line, for programs that collect logs."""
    access_log: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of requests that get a line in `access.log`: 0 none, 0.01 one of a hundred, 1 all.
    Which ones is left to chance."""

    def settings(self) -> desired.LogSettings:
        """Return the core's value."""
        return desired.LogSettings(self.format, self.access_log)


class MetricsSection(fields.Section):
    """What `/metrics` has, see docs/metrics.md."""

    models_max: fields.Count = 100
    """How many models have series of their own, those used most; all others count as one. A model
    has about 25."""

    def settings(self) -> desired.MetricsSettings:
        """Return the core's value."""
        return desired.MetricsSettings(self.models_max)


class PoolSection(fields.Section):
    """Workers that hold many small models."""

    workers: workers_schema.WorkersOrRange = "auto"
    """How many worker processes; `auto`: one for each core, 16 at most, or one for each GPU. With
    `min` and `max` the pool follows its load; see below."""
    memory: fields.PositiveSize = 4 << 30
    """Host memory that one worker may use for models."""
    gpu_memory: fields.Size = 0
    """GPU memory that one worker may use for models; needed with `device: cuda`."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where models run."""
    placement: PlacementSection = PlacementSection()
    """On which nodes of a cluster the workers run; see below."""
    eviction: Literal["gdsf", "lru"] = "gdsf"
    """Which model is evicted when memory is short: `gdsf` weighs uses, load time and size; `lru`
    is the least recently used."""
    allocator: Literal["jemalloc", "system"] = "jemalloc"
    """The memory allocator of a worker. `jemalloc`, if Ray has it, leaves fewer gaps; `system` is
    the C library's."""
    idle_unload_s: fields.Seconds | None = None
    """Unload a model that has not been used for this long. Default: never."""
    loads_parallel: fields.Count = 4
    """How many models one worker loads at the same time."""
    queue_max: fields.Count = 1000
    """How many requests one worker holds before it answers 429."""
    load_timeout_s: fields.Seconds = 120.0
    """How long a load may take before it counts as failed."""
    isolate: fields.Isolation = "none"
    """Where its models run: `none`, in the worker; `process`, each in a process of its own, so
    that a crash takes down only the model. That costs memory and time: see docs/operations.md."""
    predict_timeout_s: fields.Seconds | None = None
    """How long a prediction may take before it is answered with 504. Default: as long as it takes,
    since only a model's owner knows what is too long."""
    copies_max: fields.Count = 8
    """The largest number of workers that serve one busy model; with 1 each model is on one
    worker."""

    @model_validator(mode="after")
    def _fits_device(self) -> PoolSection:
        if self.device == "cuda" and not self.gpu_memory:
            raise ValueError(
                "device: cuda needs gpu_memory, the bytes of GPU memory for each worker, "
                "for example gpu_memory: 8GiB"
            )
        if self.device == "cpu" and self.gpu_memory:
            raise ValueError("gpu_memory is only used with device: cuda")
        return self

    def workers_in(self, capacity: cluster_control.WorkerCapacity) -> int:
        """Return the number of workers in a cluster, of a pool that follows its load the largest.

        `auto` is one for each GPU with `device: cuda`, else one for each core, 16 at most.
        Raises ConfigInvalid if the cluster has too few GPUs, or `min` more than `auto`.
        """
        asked = (
            self.workers.max
            if isinstance(self.workers, workers_schema.WorkersSection)
            else self.workers
        )
        if self.device == "cuda":
            most = _workers_on_gpus(asked, capacity.gpus)
        elif isinstance(asked, int):
            most = asked
        else:
            most = max(1, min(capacity.cores, WORKERS_AUTO_MAX))
        scaling = self.scaling
        if scaling is not None and scaling.workers_min > most:
            raise errors.ConfigInvalid(
                f"a pool has workers: {{min: {scaling.workers_min}, max: auto}}, and auto is {most}"
                " here; give max a number"
            )
        return most

    @property
    def scaling(self) -> desired.ScalingSettings | None:
        """How the pool follows its load, None if its number of workers is fixed."""
        return (
            self.workers.settings()
            if isinstance(self.workers, workers_schema.WorkersSection)
            else None
        )

    @property
    def workers_in_words(self) -> str:
        """How many workers it has, such as `4` or `0 to 8`."""
        asked = self.workers
        return (
            f"{asked.min} to {asked.max}"
            if isinstance(asked, workers_schema.WorkersSection)
            else str(asked)
        )


def _workers_on_gpus(asked: int | Literal["auto"], gpus: int) -> int:
    if not gpus:
        raise errors.ConfigInvalid(
            "a pool has device: cuda, but the cluster has no GPU; use device: cpu"
        )
    workers = asked if isinstance(asked, int) else gpus
    if workers > gpus:
        raise errors.ConfigInvalid(
            f"a pool has device: cuda and {workers} workers, one a GPU, "
            f"but the cluster has {gpus} GPUs"
        )
    return workers


def _with_default(pools: dict[str, PoolSection]) -> dict[str, PoolSection]:
    # Models that name no pool are in it, and gateways send unknown names to it.
    return pools if DEFAULT_POOL in pools else {DEFAULT_POOL: PoolSection(), **pools}


Pools = Annotated[dict[fields.PoolName, PoolSection], AfterValidator(_with_default)]


class Config(fields.Section):
    """A whole config.yaml. Every path in it is absolute."""

    gateway: GatewaySection = GatewaySection()
    """Where clients connect, and who may."""
    registry: RegistrySection = RegistrySection()
    """The database that outlives the mesh."""
    state_dir: fields.AbsolutePath = Field(default_factory=home)
    """Where the mesh keeps its state on this machine. Default: `MESHSERVE_HOME`, or
    `~/.meshserve`."""
    cache: CacheSection = CacheSection()
    """The disk that fetched artifacts may use."""
    ray: RaySection = RaySection()
    """The Ray cluster of a mesh on one machine."""
    logging: LoggingSection = LoggingSection()
    """The mesh's log files."""
    metrics: MetricsSection = MetricsSection()
    """The figures for Prometheus."""
    pools: Pools = {}  # noqa: RUF012 - pydantic copies it
    """Groups of workers by name. The one named `default` always exists."""
    models: tuple[model_schema.ModelSection, ...] = ()
    """The models to serve."""
    repositories: tuple[model_schema.RepositorySection, ...] = ()
    """Folders whose models are all served."""
    llms: tuple[llm_schema.LlmSection, ...] = ()
    """Large language models, each in a process of its own with its own GPUs."""
    kubernetes: kubernetes_schema.KubernetesSection = kubernetes_schema.KubernetesSection()
    """For `meshserve manifest` alone: see docs/kubernetes.md."""

    @property
    def registry_url(self) -> str:
        """The registry's database, as a URL for SQLAlchemy."""
        return self.registry.url or f"sqlite:///{self.state_dir / 'registry.db'}"

    @property
    def cache_path(self) -> Path:
        """The folder of fetched artifacts."""
        return self.cache.path or self.state_dir / "cache"

    @property
    def admin_key(self) -> str:
        """The first API key that opens the management paths, or an empty text."""
        # Any of them will do: keys do not differ in what an admin may do.
        return next((key.key for key in self.gateway.keys if key.admin), "")

    def pool_settings(
        self, name: str, capacity: cluster_control.WorkerCapacity
    ) -> desired.PoolSettings:
        """Return the core's value for a pool. Raises ConfigInvalid for too few GPUs."""
        pool = self.pools[name]
        worker = desired.WorkerSettings(
            pool=name,
            device=pool.device,
            memory=model.Footprint(pool.memory, pool.gpu_memory),
            eviction=pool.eviction,
            allocator=pool.allocator,
            idle_unload_s=pool.idle_unload_s,
            loads_parallel=pool.loads_parallel,
            queue_max=pool.queue_max,
            isolate=pool.isolate,
            predict_timeout_s=pool.predict_timeout_s,
            labels=tuple(sorted(pool.placement.labels.items())),
            is_packed=pool.placement.strategy == "pack",
            cache_path=str(self.cache_path),
            cache_bytes_max=self.cache.size,
            artifact_bytes_max=self.cache.artifact_bytes_max,
        )
        return desired.PoolSettings(
            worker,
            pool.workers_in(capacity),
            pool.load_timeout_s,
            pool.copies_max,
            pool.scaling,
        )

    def model_specs(self) -> tuple[model.ModelSpec, ...]:
        """Return the core's value for every model, in the order of the file."""
        return tuple(
            entry.spec(self.pools[entry.pool].load_timeout_s, model.FROM_CONFIG)
            for entry in self.models
        )


def known_keys(root: type[fields.Section], path: diagnostics.Path) -> tuple[str, ...]:
    """Return the keys that are allowed in the section at `path` below `root`."""
    # Pydantic says where an error is, not in which section: the keys' types say that.
    section = root
    for part in path:
        key = section.model_fields.get(str(part))
        section = next(sections_in(key.annotation), section) if key else section
    return tuple(section.model_fields)


def sections_in(annotation: Any) -> Iterator[type[fields.Section]]:
    """Yield the sections that a key's type names, such as that of each entry of a list."""
    if isinstance(annotation, type) and issubclass(annotation, fields.Section):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)
