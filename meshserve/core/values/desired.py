"""The desired state of the mesh: pools, gateway, repositories, and the configuration's models."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshserve.core.values import llm_spec, model, snapshots

DEFAULT_POOL = "default"
DEFAULT_MEMORY = model.Footprint(4 << 30)
"""The memory budget of a worker whose pool has none configured: 4 GiB of host memory."""

WORKERS_MAX = 16_383
"""The most workers of a pool: Envoy's rings have no room for more (`core/processes/hash_ring`)."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The settings of a worker's process; a worker is replaced when those of its pool change.

    `predict_timeout_s` bounds the predictions of models that set no limit, None does not.
    `labels` are keys and values that a node must have; `is_packed`: on as few nodes as possible.
    """

    pool: str = DEFAULT_POOL
    device: str = "cpu"
    memory: model.Footprint = DEFAULT_MEMORY
    # On six traces it loses 22 to 36 % less time to loads than LRU (bench/eviction.py).
    eviction: str = "gdsf"
    # It counts what each thread has allocated, by which the footprints of loads are measured.
    allocator: str = "jemalloc"
    idle_unload_s: float | None = None
    loads_parallel: int = 4
    queue_max: int = 1000
    isolate: str = "none"
    predict_timeout_s: float | None = None
    labels: tuple[tuple[str, str], ...] = ()
    is_packed: bool = False
    cache_path: str = ""
    cache_bytes_max: int = 20 << 30
    artifact_bytes_max: int = 10 << 30


HELD_AT_POOLS = llm_spec.HoldLimits(wait_s_max=120.0)
"""A worker starts in seconds, an LLM in minutes."""


@dataclass(frozen=True, slots=True)
class ScalingSettings:
    """How a pool follows its load: with `workers_min` workers at least, 0 while nobody calls it.

    A need for more workers has to last for `grow_after_s`, one for fewer for `shrink_after_s`.
    `held` bounds the requests that wait for the first worker of a pool that has none.
    """

    workers_min: int = 1
    grow_after_s: float = 5.0
    shrink_after_s: float = 300.0
    held: llm_spec.HoldLimits = HELD_AT_POOLS


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """A pool of equal workers: `workers` of them, with `scaling` at most.

    `load_timeout_s` applies to models that set none. A busy model has at most `copies_max` copies
    in the pool.
    """

    settings: WorkerSettings = field(default_factory=WorkerSettings)
    workers: int = 1
    load_timeout_s: float = 120.0
    copies_max: int = 8
    scaling: ScalingSettings | None = None

    @property
    def name(self) -> str:
        """The pool's name, the first part of its workers' ids."""
        return self.settings.pool

    @property
    def workers_min(self) -> int:
        """The fewest workers that it has."""
        return self.scaling.workers_min if self.scaling else self.workers

    @property
    def can_sleep(self) -> bool:
        """Whether it has no worker while nobody calls its models, whose requests are then held."""
        return self.workers_min == 0

    def worker_ids(self) -> tuple[str, ...]:
        """Return the ids of the pool's workers; they stay the same at each start."""
        # The ring hashes these ids: after a restart each model has the home that it had before.
        return tuple(f"{self.name}-{number}" for number in range(self.workers))


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The settings of all gateways.

    `file_roots` are the folders whose files clients may register as models. `is_native`: requests
    go to workers as frames where they can. `labels` are those that a node with a gateway must have.
    """

    listen: str = "127.0.0.1:8080"
    request_bytes_max: int = 64 << 20
    keys: tuple[snapshots.ApiKey, ...] = ()
    cors_origins: tuple[str, ...] = ()
    file_roots: tuple[str, ...] = ("/",)
    is_native: bool = False
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The form of all logs, and the share of requests with a line in the access log."""

    form: str = "text"
    access: float = 0.0


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """What `/metrics` has: series of `models_max` models, and of the others as one."""

    models_max: int = 100


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """A folder or bucket all of whose models are served; `place` is its path or URI."""

    place: str
    watch: bool = True
    pool: str = DEFAULT_POOL
    trust: bool = False

    @property
    def origin(self) -> model.Origin:
        """The origin of its models' specs."""
        return model.Origin(model.OriginKind.REPOSITORY, self.place)


@dataclass(frozen=True, slots=True)
class DesiredAlias:
    """An alias: requests for it go to the model `name`, to its newest version if `version` is "".

    `target`, if not empty, is the model that the alias will mean once it is loaded, and `failure`
    says why it could not be loaded. `owner`, if not empty, is the ModelMesh owner id that a request
    must give to change the alias. `before` has what it meant earlier, the newest first.
    """

    alias: str
    name: str
    version: str = ""
    origin: model.Origin = model.FROM_API
    owner: str = ""
    target: str = ""
    failure: str = ""
    before: tuple[model.ModelId, ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """A whole configuration. `document` is its JSON text, which a restarted controller reads."""

    pools: tuple[PoolSettings, ...] = (PoolSettings(),)
    gateway: GatewaySettings = GatewaySettings()
    models: tuple[model.ModelSpec, ...] = ()
    aliases: tuple[DesiredAlias, ...] = ()
    repositories: tuple[RepositorySettings, ...] = ()
    llms: tuple[llm_spec.LlmSpec, ...] = ()
    logs: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    # A document and not these values: a later version of meshserve reads it with its own defaults.
    document: str = ""

    @property
    def can_sleep(self) -> bool:
        """Whether a pool sleeps at times: only Envoy's scripts hold requests, its module can't."""
        return any(pool.can_sleep for pool in self.pools)

    def pool(self, name: str) -> PoolSettings | None:
        """Return the pool of that name, if any."""
        return next((pool for pool in self.pools if pool.name == name), None)
