"""Envoy's settings for its module in C, which sends requests to workers as frames. Pure.

Without the module all requests go by HTTP; `gateway/native` says what is different with it.
"""

from __future__ import annotations

from meshserve.gateway.envoy import Json

FILTER = "mesh-calls"
NAME = "meshframes"
TYPES = "type.googleapis.com/envoy.extensions"
FILTER_CONFIG = f"{TYPES}.filters.http.dynamic_modules.v3.DynamicModuleFilter"
UPSTREAM_CONFIG = f"{TYPES}.upstreams.http.dynamic_modules.v3.Config"
ROUTE_CONFIG = f"{TYPES}.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute"
TCP_OPTIONS = "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions"
STRING = "type.googleapis.com/google.protobuf.StringValue"


def http_filters(module: str) -> list[Json]:
    """Return the filter of calls, disabled where no route wants it; none without a module."""
    if not module:
        return []
    config: Json = {
        "@type": FILTER_CONFIG,
        "dynamic_module_config": _load(module),
        "filter_name": FILTER,
    }
    return [{"name": FILTER, "disabled": True, "typed_config": config}]


def task(module: str, request_bytes_max: int) -> Json:
    """Return a route's settings with which the filter does there what the Lua script does else."""
    return {
        "@type": ROUTE_CONFIG,
        "dynamic_module_config": _load(module),
        "per_route_config_name": FILTER,
        "filter_config": {"@type": STRING, "value": str(request_bytes_max)},
    }


def upstream(module: str, options: Json, idle_timeout: str) -> Json:
    """Return what makes a cluster's requests frames; nothing without a module.

    `options` are those of the cluster's protocols.
    """
    if not module:
        return {}
    # Frames need a connection for each request in flight, of which Envoy keeps idle ones for ten
    # minutes by default.
    idle: Json = {"@type": f"type.googleapis.com/{TCP_OPTIONS}", "idle_timeout": idle_timeout}
    config: Json = {
        "@type": UPSTREAM_CONFIG,
        "dynamic_module_config": _load(module),
        "bridge_name": NAME,
    }
    return {
        "typed_extension_protocol_options": {**options, TCP_OPTIONS: idle},
        "upstream_config": {"name": "envoy.upstreams.http.dynamic_modules", "typed_config": config},
    }


def _load(module: str) -> Json:
    # Never unloaded: requests under way on an old listener still run its code.
    return {"module": {"local": {"filename": module}}, "do_not_close": True}
