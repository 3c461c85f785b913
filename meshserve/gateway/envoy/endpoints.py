"""Every path that the gateway serves, and which cluster answers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from meshserve.gateway.envoy import api_keys, clusters, lua_filter
from meshserve.protocol import paths

MODEL_METHODS = (
    paths.MODEL_INFER,
    paths.MODEL_READY,
    paths.MODEL_METADATA,
    paths.MODEL_CONFIG,
)
QUICK_METHODS = (
    paths.SERVER_LIVE,
    paths.SERVER_READY,
    paths.SERVER_METADATA,
)
SIDECAR_METHODS = (*QUICK_METHODS, paths.MODEL_STREAM_INFER)
CONTROLLER_METHODS = (
    paths.REPOSITORY_INDEX,
    paths.REPOSITORY_MODEL_LOAD,
    paths.REPOSITORY_MODEL_UNLOAD,
    paths.SYSTEM_SHARED_MEMORY_STATUS,
    paths.SYSTEM_SHARED_MEMORY_REGISTER,
    paths.SYSTEM_SHARED_MEMORY_UNREGISTER,
    paths.CUDA_SHARED_MEMORY_STATUS,
    paths.CUDA_SHARED_MEMORY_REGISTER,
    paths.CUDA_SHARED_MEMORY_UNREGISTER,
    paths.TRACE_SETTING,
    paths.LOG_SETTINGS,
)
# Envoy's bridge cannot decompress a message. Calls compressed like this go to the sidecar, which
# decompresses them and sends them through Envoy again.
COMPRESSIONS = ("gzip", "deflate")


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster behind a path, where the script looks for the model's name, and who may call.

    `is_whole_path`: nothing below the path is served. `is_openai`: the prefix `/openai` is removed.
    `timeout_s` bounds the wait for the answer once the whole request is there; 0 does not.
    """

    cluster: str
    name_source: lua_filter.NameSource
    level: api_keys.AccessLevel = api_keys.AccessLevel.CLIENT
    is_grpc: bool = False
    is_whole_path: bool = False
    is_openai: bool = False
    timeout_s: int = 0


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets by exact path (query included) and by prefix, of which the longest one counts."""

    exact: Mapping[str, Target]
    under: Mapping[str, Target]


STATISTICS = Target(clusters.CONTROLLER, lua_filter.NameSource.MESSAGE, is_grpc=True)
"""The target of `ModelStatistics` without a model's name; the script must look for one."""

LLM_LISTING = Target(clusters.CONTROLLER, lua_filter.NameSource.NONE, is_openai=True)
"""The target of OpenAI's model listing."""

GENERATE = Target(clusters.CONTROLLER, lua_filter.NameSource.LLM)
"""The target of the Open Inference Protocol's `generate`, whose URL names the LLM."""

SMALL_LISTING = Target(clusters.CONTROLLER, lua_filter.NameSource.NONE)
"""The target of KServe's listing of small models."""

QUICK_TIMEOUT_S = 5
"""A bound for calls that the sidecar answers from memory. gRPC's server never answers those that
end without a message."""

_SIDECAR_GRPC = Target(clusters.NODE_GRPC, lua_filter.NameSource.NONE, is_grpc=True)
# gRPC's server never answers a call that ends without a message: the script refuses it.
_SIDECAR_UNARY = replace(_SIDECAR_GRPC, name_source=lua_filter.NameSource.FRAME)


def targets(default_cluster: str) -> Targets:
    """Return the target of every path, for requests whose model has no route of its own."""
    controller = Target(
        clusters.CONTROLLER,
        lua_filter.NameSource.NONE,
        api_keys.AccessLevel.ADMIN,
        is_grpc=True,
    )
    worker = Target(default_cluster, lua_filter.NameSource.MESSAGE, is_grpc=True)
    exact = {
        **dict.fromkeys(MODEL_METHODS, worker),
        **dict.fromkeys(SIDECAR_METHODS, _SIDECAR_GRPC),
        **dict.fromkeys(QUICK_METHODS, replace(_SIDECAR_GRPC, timeout_s=QUICK_TIMEOUT_S)),
        paths.HEALTH_CHECK: replace(
            _SIDECAR_GRPC, level=api_keys.AccessLevel.OPEN, timeout_s=QUICK_TIMEOUT_S
        ),
        **dict.fromkeys(CONTROLLER_METHODS, controller),
        paths.MODEL_STATISTICS: STATISTICS,
        paths.V2_STATISTICS: Target(clusters.CONTROLLER, lua_filter.NameSource.NONE),
        # Without a name behind them these are lists, with a slash or not.
        paths.V1_MODELS: LLM_LISTING,
        paths.V2_MODELS: SMALL_LISTING,
    }
    under = {
        paths.REPOSITORY: controller,
        paths.MODEL_MESH: controller,
        paths.HEALTH: replace(_SIDECAR_UNARY, level=api_keys.AccessLevel.OPEN),
        paths.REFLECTION: _SIDECAR_GRPC,
        paths.REFLECTION_ALPHA: _SIDECAR_GRPC,
        **_rest(default_cluster),
        **_openai(),
    }
    return Targets(exact, under)


def compressed() -> Targets:
    """Return the targets of unary calls whose message is compressed: the sidecar relays them."""
    methods = (*MODEL_METHODS, *CONTROLLER_METHODS, paths.MODEL_STATISTICS)
    return Targets(
        dict.fromkeys(methods, _SIDECAR_UNARY),
        {paths.REPOSITORY: _SIDECAR_UNARY, paths.MODEL_MESH: _SIDECAR_UNARY},
    )


def _rest(default_cluster: str) -> dict[str, Target]:
    worker = Target(default_cluster, lua_filter.NameSource.URL)
    controller = Target(clusters.CONTROLLER, lua_filter.NameSource.NONE, api_keys.AccessLevel.ADMIN)
    page = Target(clusters.NODE_HTTP, lua_filter.NameSource.NONE, is_whole_path=True)
    open_page = replace(page, level=api_keys.AccessLevel.OPEN)
    return {
        paths.V2_MODELS: worker,
        paths.V1_MODELS: worker,
        paths.V2_REPOSITORY: controller,
        paths.MESH_V1: controller,
        paths.V2_SYSTEM_SHARED_MEMORY: controller,
        paths.V2_CUDA_SHARED_MEMORY: controller,
        paths.V2_TRACE_SETTING: controller,
        paths.V2_LOGGING: controller,
        paths.V2_MODEL_LIST: replace(SMALL_LISTING, is_whole_path=True),
        **_with_and_without_slash(paths.V2, page),
        **_with_and_without_slash(paths.V2_LIVE, page),
        **_with_and_without_slash(paths.V2_READY, page),
        **_with_and_without_slash(paths.METRICS, page),
        **_with_and_without_slash(paths.HEALTHZ, open_page),
        **_with_and_without_slash(paths.READYZ, open_page),
        # The shortest prefix: only what nothing else serves comes here.
        paths.ROOT: open_page,
    }


def _with_and_without_slash(path: str, target: Target) -> dict[str, Target]:
    """Return a whole path's targets: clients append slashes, as OIP's own OpenAPI file does."""
    return {path: target, f"{path}/": target}


def _openai() -> dict[str, Target]:
    # The script answers each request or sends it to its LLM. The controller gets it only if the
    # script fails, and answers 404.
    llm = replace(LLM_LISTING, name_source=lua_filter.NameSource.LLM)
    models = replace(LLM_LISTING, is_whole_path=True)
    return {
        paths.OPENAI: llm,
        paths.PREFIXED_OPENAI: llm,
        **dict.fromkeys(paths.ENGINE_PATHS, replace(llm, is_whole_path=True)),
        paths.OPENAI_MODELS: models,
        paths.PREFIXED_OPENAI_MODELS: models,
        f"{paths.PREFIXED_OPENAI_MODELS}/": LLM_LISTING,
    }
