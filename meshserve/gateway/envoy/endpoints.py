"""Every path behind the one port, and who answers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from meshserve.gateway.envoy import api_keys, clusters, openai_errors
from meshserve.gateway.lua import small_models

INFERENCE = "/inference.GRPCInferenceService/"
REPOSITORY = "/inference.model_repository.ModelRepositoryService/"
MODEL_MESH = "/mmesh.ModelMesh/"
STATISTICS = f"{INFERENCE}ModelStatistics"
OF_MODELS = ("ModelInfer", "ModelReady", "ModelMetadata", "ModelConfig")
OF_NODE = ("ServerLive", "ServerReady", "ServerMetadata", "ModelStreamInfer")
OF_CONTROLLER = (
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
)
# What a client may have compressed its message with. Only the node's server can undo it, so such calls take a turn through there.
COMPRESSIONS = ("gzip", "deflate")


@dataclass(frozen=True, slots=True)
class Target:
    """What a path leads to: a cluster, the script's task on the way there, and who may go. Paths of OpenAI's API lose `/openai`."""

    cluster: str
    key: small_models.Key
    level: api_keys.Level
    is_grpc: bool = False
    is_whole_path: bool = False
    is_openai: bool = False


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets by the whole path (a query makes it another), and by how the path begins (the longest beginning counts)."""

    exact: Mapping[str, Target]
    under: Mapping[str, Target]


def targets(default_cluster: str) -> Targets:
    """Where every path leads, when no model's name says otherwise."""
    node = Target(clusters.NODE_GRPC, small_models.Key.NONE, api_keys.Level.CLIENT, is_grpc=True)
    controller = Target(
        clusters.CONTROLLER, small_models.Key.NONE, api_keys.Level.ADMIN, is_grpc=True
    )
    worker = Target(default_cluster, small_models.Key.MESSAGE, api_keys.Level.CLIENT, is_grpc=True)
    exact = {
        **_each(OF_MODELS, worker),
        **_each(OF_NODE, node),
        **_each(OF_CONTROLLER, controller),
        STATISTICS: statistics(),
        "/v2/models/stats": Target(
            clusters.CONTROLLER, small_models.Key.NONE, api_keys.Level.CLIENT
        ),
    }
    under = {
        REPOSITORY: controller,
        MODEL_MESH: controller,
        "/grpc.health.v1.Health/": replace(node, level=api_keys.Level.OPEN),
        "/grpc.reflection.v1.ServerReflection/": node,
        "/grpc.reflection.v1alpha.ServerReflection/": node,
        **_rest(default_cluster),
        **_openai(),
    }
    return Targets(exact, under)


def statistics() -> Target:
    """Where the question for statistics leads that names no model; the script must look."""
    return Target(
        clusters.CONTROLLER, small_models.Key.MESSAGE, api_keys.Level.CLIENT, is_grpc=True
    )


def about_llms() -> Target:
    """Where questions about LLMs lead."""
    return Target(clusters.CONTROLLER, small_models.Key.NONE, api_keys.Level.CLIENT, is_openai=True)


def relayed() -> Targets:
    """Where unary calls with a compressed message lead."""
    node = Target(clusters.NODE_GRPC, small_models.Key.NONE, api_keys.Level.CLIENT, is_grpc=True)
    return Targets(
        _each((*OF_MODELS, *OF_CONTROLLER, "ModelStatistics"), node),
        {REPOSITORY: node, MODEL_MESH: node},
    )


def _rest(default_cluster: str) -> dict[str, Target]:
    worker = Target(default_cluster, small_models.Key.URL, api_keys.Level.CLIENT)
    controller = Target(clusters.CONTROLLER, small_models.Key.NONE, api_keys.Level.ADMIN)
    page = Target(
        clusters.NODE_HTTP, small_models.Key.NONE, api_keys.Level.CLIENT, is_whole_path=True
    )
    return {
        "/v2/models/": worker,
        "/v1/models/": worker,
        "/v2/repository/": controller,
        "/mesh/v1/": controller,
        "/v2/systemsharedmemory/": controller,
        "/v2/cudasharedmemory/": controller,
        "/v2/trace/setting": controller,
        "/v2/logging": controller,
        "/v2": page,
        "/v2/health/live": page,
        "/v2/health/ready": page,
        "/metrics": page,
        "/healthz": replace(page, level=api_keys.Level.OPEN),
        "/readyz": replace(page, level=api_keys.Level.OPEN),
    }


def _openai() -> dict[str, Target]:
    # The script sends every request on by its model or answers it. Where it breaks down, the controller says that it has no such page.
    llm = replace(about_llms(), key=small_models.Key.LLM)
    models = replace(about_llms(), is_whole_path=True)
    return {
        openai_errors.API: llm,
        openai_errors.OTHER_API: llm,
        **dict.fromkeys(openai_errors.BARE, replace(llm, is_whole_path=True)),
        openai_errors.MODELS: models,
        openai_errors.OTHER_MODELS: models,
        f"{openai_errors.OTHER_MODELS}/": about_llms(),
    }


def _each(names: tuple[str, ...], target: Target) -> dict[str, Target]:
    return {f"{INFERENCE}{name}": target for name in names}
