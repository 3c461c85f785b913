"""Build Envoy's route table, which decides which cluster answers a request. No I/O.

The table is a tree of hash look-ups, so that its size does not slow requests down. A prediction is
looked up twice: by path, for the API key's rule and the script's task, and then, once the script
has set `x-mesh-model`, by the model's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import (
    Json,
    api_keys,
    clusters,
    cors,
    endpoints,
    llm_routes,
    lua_filter,
    matchers,
    native_calls,
    openai_errors,
)
from meshserve.protocol import paths

TABLE = "mesh"
SERVERS = frozenset({clusters.CONTROLLER, clusters.NODE_GRPC, clusters.NODE_HTTP})
ROUTE_TABLE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
# The bridge turns a unary gRPC call into an HTTP/1.1 request with a bare message, and back.
BRIDGE = "envoy.filters.http.grpc_http1_reverse_bridge"
BRIDGE_ON: Json = {
    "@type": "type.googleapis.com/"
    "envoy.extensions.filters.http.grpc_http1_reverse_bridge.v3.FilterConfigPerRoute"
}
CALL_ANSWERS = "answers-of-calls"
CALL_ANSWERS_ON: Json = {
    "@type": "type.googleapis.com/"
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute"
}

# A prediction changes no state, so it may be tried again however the first attempt failed.
PREDICTION_RETRIES: Json = {
    "retry_on": "connect-failure,refused-stream,reset,reset-before-request,retriable-status-codes",
    "retriable_status_codes": [503],
    "num_retries": 5,
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.5s"},
    "retry_host_predicate": matchers.OTHER_HOSTS,
    # Each attempt takes the next point of the ring, which may be of the same worker.
    "host_selection_retry_max_attempts": 32,
}
# A command is tried again only if it certainly did not arrive. The pauses are half of
# `max_interval` on average: about 9 s in all, in which a killed controller or sidecar is back on a
# busy machine too.
COMMAND_RETRIES: Json = {
    "retry_on": "connect-failure,refused-stream",
    "num_retries": 20,
    "retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"},
}


def table(snap: snapshots.GatewaySnapshot) -> Json:
    """Return the route table of the gateway's one port."""
    host = {
        "name": TABLE,
        "domains": ["*"],
        "request_body_buffer_limit": lua_filter.body_bytes_max(snap.request_bytes_max),
        "metadata": {
            "filter_metadata": {"meshserve": {"request_bytes_max": str(snap.request_bytes_max)}}
        },
        "typed_per_filter_config": cors.policy(snap.cors_origins),
        "retry_policy": PREDICTION_RETRIES,
        # A worker that gets a retry looks first whether another one has died of the request.
        "include_request_attempt_count": True,
        "matcher": _tree(snap),
    }
    return {"@type": ROUTE_TABLE, "name": TABLE, "virtual_hosts": [host]}


def _tree(snap: snapshots.GatewaySnapshot) -> Json:
    default = clusters.pool_cluster(snap.default_pool)
    listing = matchers.action(_target_route(snap, endpoints.LLM_LISTING))
    generate = matchers.action(_target_route(snap, endpoints.GENERATE))
    special = {
        paths.MODEL_STATISTICS: _statistics(snap, default),
        **dict.fromkeys(llm_routes.model_paths(snap.llms), listing),
        **dict.fromkeys(llm_routes.generate_paths(snap.llms), generate),
    }
    by_path = _by_path(snap, endpoints.targets(default), special)
    by_model = matchers.exact(lua_filter.MODEL_HEADER, _pools(snap) | _hot_models(snap), by_path)
    compressed: Json = {"matcher": _by_path(snap, endpoints.compressed(), {})}
    encodings = dict.fromkeys(endpoints.COMPRESSIONS, compressed)
    by_encoding = matchers.exact("grpc-encoding", encodings, by_model)
    return matchers.exact(lua_filter.TURN_HEADER, _turns(snap), by_encoding)


def _pools(snap: snapshots.GatewaySnapshot) -> dict[str, Json]:
    """Return the action for each model and alias outside of the default pool."""
    # Each pool's action is built once and shared by its models, of which there may be thousands.
    pools = {
        pool: matchers.action(_route(snap, clusters.pool_cluster(pool)))
        for pool in set(snap.routes.values())
    }
    return {name: pools[pool] for name, pool in snap.routes.items()}


def _hot_models(snap: snapshots.GatewaySnapshot) -> dict[str, Json]:
    """Return the action for each name of a model that several workers serve."""
    return {name: matchers.action(_hot(snap, hot)) for hot in snap.hot for name in hot.names}


def _hot(snap: snapshots.GatewaySnapshot, hot: snapshots.HotRoute) -> Json:
    route = _route(snap, clusters.busy_cluster(hot.pool))
    match = {"filter_metadata": {"envoy.lb": {clusters.HOT_KEY: hot.name}}}
    return route | {"route": {**cast("Json", route["route"]), "metadata_match": match}}


def _turns(snap: snapshots.GatewaySnapshot) -> dict[str, Json]:
    """Return the actions for requests that a script has marked: too large, or for an LLM.

    One look-up finds both, so that LLMs do not slow down other requests.
    """
    discarded = matchers.action(_route(snap, clusters.NODE_HTTP))
    turns = {lua_filter.TOO_LARGE: discarded, lua_filter.TOO_LARGE_FOR_LLM: discarded}
    if snap.llms:
        by_name = matchers.exact(lua_filter.MODEL_HEADER, llm_routes.by_model(snap.llms), None)
        turns[lua_filter.LLM] = {"matcher": by_name}
    return turns


def _by_path(
    snap: snapshots.GatewaySnapshot, targets: endpoints.Targets, special: Mapping[str, Json]
) -> Json:
    exact = {
        path: matchers.action(_target_route(snap, target)) for path, target in targets.exact.items()
    }
    under = {
        path: matchers.action(_target_route(snap, target, path))
        for path, target in targets.under.items()
    }
    by_prefix = matchers.longest_prefix(":path", under)
    return matchers.exact(":path", {**exact, **special}, by_prefix)


def _statistics(snap: snapshots.GatewaySnapshot, default: str) -> Json:
    """Return the action for ModelStatistics: of one model by a worker, of all by the controller."""
    all_models = matchers.action(_target_route(snap, endpoints.STATISTICS))
    one_model = matchers.action(_route(snap, default))
    return matchers.if_present(lua_filter.MODEL_HEADER, one_model, all_models)


def _target_route(
    snap: snapshots.GatewaySnapshot, target: endpoints.Target, path: str = ""
) -> Json:
    match: Json = {"path": path} if target.is_whole_path else {"prefix": "/"}
    route = _route(snap, target.cluster, is_openai=target.is_openai)
    if target.timeout_s:
        cast("Json", route["route"])["timeout"] = f"{target.timeout_s}s"
    return route | {
        "match": match | ({"grpc": {}} if target.is_grpc else {}),
        "typed_per_filter_config": _filters(snap, target),
    }


def _route(snap: snapshots.GatewaySnapshot, cluster: str, *, is_openai: bool = False) -> Json:
    """Return a route to the cluster by any path.

    The route must be small: the table repeats it for each model outside of the default pool.
    """
    action: Json = {"cluster": cluster, "timeout": "0s"}
    # The sidecar enforces deadlines itself: it can end a stream in progress with a gRPC status,
    # which Envoy could only reset.
    if cluster != clusters.NODE_GRPC:
        action["max_stream_duration"] = {"grpc_timeout_header_max": "0s"}
    if cluster in SERVERS:
        action["retry_policy"] = COMMAND_RETRIES
    else:
        action["hash_policy"] = [{"header": {"header_name": lua_filter.MODEL_HEADER}}]
    route: Json = {"@type": matchers.ROUTE, "match": {"prefix": "/"}, "route": action}
    if is_openai:
        action["regex_rewrite"] = openai_errors.REWRITE
        route["request_headers_to_add"] = [openai_errors.MARK]
    for pool, wait_s in snap.held.items():
        if cluster == clusters.pool_cluster(pool):
            wait_ms = int((wait_s + llm_routes.WAIT_SLACK_S) * 1000)
            route["metadata"] = {"filter_metadata": {lua_filter.FILTER: {"wait_ms": wait_ms}}}
    # The sidecar must get the key: it sends calls through Envoy, which checks the key again.
    if snap.keys and cluster != clusters.NODE_GRPC:
        route["request_headers_to_remove"] = list(api_keys.KEY_HEADERS)
    return route


def _filters(snap: snapshots.GatewaySnapshot, target: endpoints.Target) -> Json:
    """Return the settings of the filters that the route enables.

    Only the route by path has them, because filters keep the settings of a request's first route.
    """
    rules = api_keys.rule(target.level, snap.keys)
    is_sidecar = target.cluster == clusters.NODE_GRPC
    if is_sidecar and target.name_source is lua_filter.NameSource.NONE:
        return rules
    is_message = target.name_source is lua_filter.NameSource.MESSAGE
    if snap.module and is_message and target.cluster not in SERVERS:
        calls = native_calls.task(snap.module, snap.request_bytes_max)
        return {**rules, native_calls.FILTER: calls}
    task = lua_filter.task(target.name_source, snap.request_bytes_max, has_held=bool(snap.held))
    filters = {**rules, lua_filter.FILTER: task}
    if target.is_grpc and not is_sidecar:
        filters |= {BRIDGE: BRIDGE_ON, CALL_ANSWERS: CALL_ANSWERS_ON}
    return filters
