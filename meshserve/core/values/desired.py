"""What a user asks of the mesh: pools, gateways, repositories, the models and aliases of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshserve.core.values import llm_spec, model, snapshots

DEFAULT_POOL = "default"
MEMORY = model.Footprint(4 << 30)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """All that a worker's process is started with. A worker whose settings differ from its pool's is replaced."""

    pool: str = DEFAULT_POOL
    device: str = "cpu"
    memory: model.Footprint = MEMORY
    eviction: str = "gdsf"
    allocator: str = "jemalloc"
    idle_unload_s: float | None = None
    loads_parallel: int = 4
    queue_max: int = 1000
    cache_path: str = ""
    cache_bytes_max: int = 20 << 30
    artifact_bytes_max: int = 10 << 30


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """A number of equal workers. `load_timeout_s` is for models that name none; a busy model is on `copies_max` of them at most."""

    settings: WorkerSettings = field(default_factory=WorkerSettings)
    workers: int = 1
    load_timeout_s: float = 120.0
    copies_max: int = 8

    @property
    def name(self) -> str:
        """The pool's name, which begins the ids of its workers."""
        return self.settings.pool

    def worker_ids(self) -> tuple[str, ...]:
        """The ids of its workers, the same at each start."""
        return tuple(f"{self.name}-{number}" for number in range(self.workers))


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What every gateway is configured with."""

    listen: str = "127.0.0.1:8080"
    request_bytes_max: int = 64 << 20
    keys: tuple[snapshots.ApiKey, ...] = ()


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """A place whose models are all served; `place` is a path or a URI."""

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
    """What a name means besides its own model.

    Requests go to `name` (an empty `version` is its newest). `target`, where it is not empty, is the model that takes over once it answers;
    `failure` says why it does not yet. `owner` is who alone may change it, if anybody.
    """

    alias: str
    name: str
    version: str = ""
    origin: model.Origin = model.FROM_API
    owner: str = ""
    target: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Desired:
    """A whole configuration. `document` is its JSON text, kept so that a restarted controller knows what was last asked for."""

    pools: tuple[PoolSettings, ...] = (PoolSettings(),)
    gateway: GatewaySettings = GatewaySettings()
    models: tuple[model.ModelSpec, ...] = ()
    aliases: tuple[DesiredAlias, ...] = ()
    repositories: tuple[RepositorySettings, ...] = ()
    llms: tuple[llm_spec.LlmSpec, ...] = ()
    document: str = ""

    def pool(self, name: str) -> PoolSettings | None:
        """The pool of that name, if there is one."""
        return next((pool for pool in self.pools if pool.name == name), None)
