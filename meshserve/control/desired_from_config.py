"""A configuration as what the mesh shall be."""

from __future__ import annotations

import logging

import orjson

from meshserve import config, errors
from meshserve.core.interfaces import cluster_control as ports
from meshserve.core.values import catalog, desired, events, llm_spec, model

WORKERS_AUTO_MAX = 16

logger = logging.getLogger(__name__)


def desired_from(wanted: config.Config, capacity: ports.WorkerCapacity) -> desired.Desired:
    """What the configuration asks for. `workers: auto` is a worker for each core, or for each GPU where the pool's device is one."""
    specs = wanted.model_specs()
    return desired.Desired(
        pools=tuple(_pool(name, pool, wanted, capacity) for name, pool in wanted.pools.items()),
        gateway=desired.GatewaySettings(
            wanted.gateway.listen, wanted.gateway.request_bytes_max, wanted.api_keys()
        ),
        models=tuple(spec for spec, _ in specs),
        aliases=tuple(
            desired.DesiredAlias(alias, spec.id.name, spec.id.version, model.FROM_CONFIG)
            for spec, aliases in specs
            for alias in aliases
        ),
        repositories=tuple(_repository(each) for each in wanted.repositories),
        llms=tuple(_llm(each, capacity) for each in wanted.llms),
        document=orjson.dumps(config.document(wanted)).decode(),
    )


def desired_in(document: str, capacity: ports.WorkerCapacity) -> desired.Desired:
    """The same from a document that was kept. Raises ConfigInvalid."""
    try:
        found = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise errors.ConfigInvalid(f"the configuration is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise errors.ConfigInvalid("the configuration is not a JSON object")
    return desired_from(config.parse(found), capacity)


def last_desired(
    contents: events.RegistryContents, capacity: ports.WorkerCapacity, *, is_needed: bool
) -> desired.Desired:
    """The configuration that held last. Raises ConfigInvalid where it can't be read any more and `is_needed`."""
    if not contents.document:
        return desired.Desired(pools=())
    try:
        return desired_in(contents.document, capacity)
    except errors.ConfigInvalid as error:
        if is_needed:
            raise
        # Another one follows. All that the last one must tell is which models it had declared.
        logger.warning("the last configuration can't be read any more: %s", error.message)
        declared = [
            change.spec for change in contents.changes if isinstance(change, catalog.ModelDeclared)
        ]
        return desired.Desired(
            pools=(), models=tuple(spec for spec in declared if spec.origin == model.FROM_CONFIG)
        )


def _pool(
    name: str, pool: config.PoolSection, wanted: config.Config, capacity: ports.WorkerCapacity
) -> desired.PoolSettings:
    settings = desired.WorkerSettings(
        pool=name,
        device=pool.device,
        memory=model.Footprint(pool.memory, pool.gpu_memory),
        eviction=pool.eviction,
        allocator=pool.allocator,
        idle_unload_s=pool.idle_unload_s,
        loads_parallel=pool.loads_parallel,
        queue_max=pool.queue_max,
        cache_path=str(wanted.cache_path),
        cache_bytes_max=wanted.cache.size,
        artifact_bytes_max=wanted.cache.artifact_bytes_max,
    )
    return desired.PoolSettings(
        settings, _count(pool, capacity), pool.load_timeout_s, pool.copies_max
    )


def _count(pool: config.PoolSection, capacity: ports.WorkerCapacity) -> int:
    if pool.device == "cuda":
        return _gpu_count(pool, capacity)
    return (
        pool.workers
        if isinstance(pool.workers, int)
        else max(1, min(capacity.cores, WORKERS_AUTO_MAX))
    )


def _gpu_count(pool: config.PoolSection, capacity: ports.WorkerCapacity) -> int:
    """A worker for each GPU, or as many as are asked for and can have one."""
    if not capacity.gpus:
        raise errors.ConfigInvalid(
            "a pool has device: cuda, but the cluster has no GPU; use device: cpu"
        )
    wanted = pool.workers if isinstance(pool.workers, int) else capacity.gpus
    if wanted > capacity.gpus:
        raise errors.ConfigInvalid(
            f"a pool has device: cuda and {wanted} workers, one a GPU, but the cluster has {capacity.gpus} GPUs"
        )
    return wanted


def _repository(each: config.RepositorySection) -> desired.RepositorySettings:
    return desired.RepositorySettings(str(each.path or each.uri), each.watch, each.pool, each.trust)


def _llm(each: config.LlmSection, capacity: ports.WorkerCapacity) -> llm_spec.LlmSpec:
    spec = each.spec("cuda" if capacity.gpus else "cpu")
    if spec.share and spec.device == "cpu":
        raise errors.ConfigInvalid(
            f"LLM {spec.name!r} shares GPUs with others, but the cluster has no GPU: leave share out"
        )
    return spec
