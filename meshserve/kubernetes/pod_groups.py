"""Which pods a configuration needs: a group for each pool, and for each LLM."""

from __future__ import annotations

from dataclasses import dataclass

from meshserve import config
from meshserve.config import diagnostics, kubernetes_schema, llm_schema, schema, workers_schema
from meshserve.kubernetes import kube_names

GIB = 1 << 30
POD_OVERHEAD_BYTES = 3 * GIB // 2
"""For the raylet, its agents, the gateway with Envoy, and the interpreter of each process."""

ENGINE_BYTES = 16 * GIB
"""Host memory for an LLM's engine: nobody knows its weights before they are fetched."""

POOL_SHARED_BYTES = GIB // 2
"""More than Ray's object store of 80 MiB, and the journals of workers."""

LLM_SHARED_BYTES = 2 * GIB
POOL_CPUS = 2
LLM_CPUS = 4


@dataclass(frozen=True, slots=True)
class PodGroup:
    """Equal pods of the mesh. `origin` is what they are for, as a path in the configuration."""

    name: str
    origin: diagnostics.Path
    cpus: int
    memory_bytes: int
    shared_bytes: int
    gpus: int
    replicas_min: int
    replicas_max: int
    section: kubernetes_schema.PodGroupSection

    @property
    def is_fixed(self) -> bool:
        """Whether the number of pods never changes by itself."""
        return self.replicas_min == self.replicas_max


def plan(settings: config.Config) -> tuple[PodGroup, ...]:
    """Return the groups of pods, in the order of the file: first of pools, then of LLMs.

    LLMs that share GPUs are one group. Names may repeat and replicas be out of order:
    `group_rules` finds that.
    """
    groups = [_of_pool(settings, name, pool) for name, pool in settings.pools.items()]
    shared: set[str] = set()
    for index, llm in enumerate(settings.llms):
        if llm.share and llm.share in shared:
            continue
        shared.add(llm.share)
        groups.append(_of_llm(settings, index, llm))
    return tuple(groups)


def is_on_gpus(settings: config.Config, llm: llm_schema.LlmSection) -> bool:
    """Return whether an LLM gets GPUs; `device: auto` does, unless its group has none."""
    section = _section(settings, llm_group_name(llm))
    return llm.device == "cuda" or (llm.device == "auto" and section.gpus != 0)


def pool_group_name(name: str) -> str:
    """Return the name of a pool's group."""
    return f"pool-{kube_names.as_dns_part(name)}"


def llm_group_name(llm: llm_schema.LlmSection) -> str:
    """Return the name of an LLM's group, which is that of all LLMs with the same `share`."""
    kind, name = ("share", llm.share) if llm.share else ("llm", llm.name)
    return f"{kind}-{kube_names.as_dns_part(name)}"


def worker_bounds(pool: schema.PoolSection, group: PodGroup) -> tuple[int, int]:
    """Return the fewest and the most workers that a pool has in its pods; `auto`: one a pod."""
    return _worker_bounds(pool, max(1, group.replicas_min), max(1, group.replicas_max))


def _worker_bounds(
    pool: schema.PoolSection, auto_min: int = 1, auto_max: int = 1
) -> tuple[int, int]:
    asked = pool.workers
    if isinstance(asked, workers_schema.WorkersSection):
        most = asked.max if isinstance(asked.max, int) else max(auto_max, asked.min)
        return asked.min, most
    return (asked, asked) if isinstance(asked, int) else (auto_min, auto_min)


def workers_in_pod(bounds: tuple[int, int], replicas: tuple[int, int]) -> int:
    """Return how many workers one pod must have room for, with the fewest pods and with the most.

    Both arguments are a minimum and a maximum.
    """
    return max(-(-workers // max(1, pods)) for workers, pods in zip(bounds, replicas, strict=True))


def _section(settings: config.Config, name: str) -> kubernetes_schema.PodGroupSection:
    return settings.kubernetes.groups.get(name, kubernetes_schema.PodGroupSection())


def _of_pool(settings: config.Config, pool_name: str, pool: schema.PoolSection) -> PodGroup:
    name = pool_group_name(pool_name)
    section = _section(settings, name)
    bounds = _worker_bounds(pool)
    least, most = _replicas(section, *bounds)
    # Fewer pods than workers: each pod holds several of them.
    in_pod = workers_in_pod(bounds, (least, most))
    shared = section.shared_memory or POOL_SHARED_BYTES
    needed = pool.memory * in_pod + shared + POD_OVERHEAD_BYTES
    gpus = in_pod if pool.device == "cuda" else 0
    return PodGroup(
        name=name,
        origin=("pools", pool_name),
        cpus=section.cpus or POOL_CPUS,
        memory_bytes=section.memory or needed,
        shared_bytes=shared,
        gpus=gpus if section.gpus is None else section.gpus,
        replicas_min=least,
        replicas_max=most,
        section=section,
    )


def _of_llm(settings: config.Config, index: int, llm: llm_schema.LlmSection) -> PodGroup:
    name = llm_group_name(llm)
    section = _section(settings, name)
    gpus = engine_gpus(llm) if is_on_gpus(settings, llm) else 0
    least, most = _replicas(section, llm.replicas.min, llm.replicas.largest)
    shared = section.shared_memory or LLM_SHARED_BYTES * max(1, gpus)
    cache = 0 if gpus else llm.cpu_kv_cache
    return PodGroup(
        name=name,
        origin=("llms", index),
        cpus=section.cpus or LLM_CPUS,
        memory_bytes=section.memory or ENGINE_BYTES + cache + shared + POD_OVERHEAD_BYTES,
        shared_bytes=shared,
        gpus=gpus if section.gpus is None else section.gpus,
        replicas_min=least,
        replicas_max=most,
        section=section,
    )


def engine_gpus(llm: llm_schema.LlmSection) -> int:
    """Return how many GPUs one engine of an LLM needs."""
    return llm.tensor_parallel_size * llm.pipeline_parallel_size


def _replicas(section: kubernetes_schema.PodGroupSection, least: int, most: int) -> tuple[int, int]:
    asked = section.replicas
    return (least, most) if asked is None else (asked.min, asked.max)
