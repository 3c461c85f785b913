"""Who answers what: Envoy's route table from a snapshot. Pure.

A tree of hash look-ups, so that its size costs nothing. A prediction walks it twice: by path, for the API key and the script's
task; and, once the script has set `x-mesh-model`, by that name first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import (
    api_keys,
    clusters,
    endpoints,
    llm_routes,
    lua_filter,
    matchers,
    openai_errors,
)
from meshserve.protocol import paths

Json = dict[str, object]

TABLE = "mesh"
SERVERS = frozenset({clusters.CONTROLLER, clusters.NODE_GRPC, clusters.NODE_HTTP})
BRIDGE = "envoy.filters.http.grpc_http1_reverse_bridge"
ROUTE_TABLE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
BRIDGED: Json = {
    "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_http1_reverse_bridge.v3.FilterConfigPerRoute"
}
ANSWERS = "answers-of-calls"
ANSWERED: Json = {
    "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute"
}

# A prediction changes nothing, so it may be tried again whatever became of the first attempt.
PREDICTION_RETRIES: Json = {
    "retry_on": "connect-failure,refused-stream,reset,reset-before-request,retriable-status-codes",
    "retriable_status_codes": [503],
    "num_retries": 5,
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.5s"},
    "retry_host_predicate": matchers.ELSEWHERE,
    # Each attempt at another host looks at the next point of the ring, which may be the same worker's.
    "host_selection_retry_max_attempts": 32,
}
# A command is tried again only if it can't have arrived.
COMMAND_RETRIES: Json = {
    "retry_on": "connect-failure,refused-stream",
    "num_retries": 6,
    "retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"},
}


def table(snap: snapshots.GatewaySnapshot) -> Json:
    """The route table of everything behind the one port."""
    host = {
        "name": TABLE,
        "domains": ["*"],
        "request_body_buffer_limit": lua_filter.body_bytes_max(snap.request_bytes_max),
        "metadata": {
            "filter_metadata": {"meshserve": {"request_bytes_max": str(snap.request_bytes_max)}}
        },
        "retry_policy": PREDICTION_RETRIES,
        "matcher": _tree(snap),
    }
    return {"@type": ROUTE_TABLE, "name": TABLE, "virtual_hosts": [host]}


def _tree(snap: snapshots.GatewaySnapshot) -> Json:
    default = clusters.pool_cluster(snap.default_pool)
    about_llm = matchers.action(_to(snap, endpoints.LLM_LISTING))
    special = {
        paths.MODEL_STATISTICS: _unless_named(snap, default),
        **dict.fromkeys(llm_routes.model_paths(snap.llms), about_llm),
    }
    by_path = _by_path(snap, endpoints.targets(default), special)
    pools = {
        pool: matchers.action(_route(snap, clusters.pool_cluster(pool)))
        for pool in set(snap.routes.values())
    }
    by_name = {name: pools[pool] for name, pool in snap.routes.items()} | _hot(snap)
    by_model = matchers.lookup("exact_match_map", lua_filter.MODEL_HEADER, by_name, by_path)
    relayed: Json = {"matcher": _by_path(snap, endpoints.compressed(), {})}
    by_encoding = matchers.lookup(
        "exact_match_map", "grpc-encoding", dict.fromkeys(endpoints.COMPRESSIONS, relayed), by_model
    )
    return matchers.lookup("exact_match_map", lua_filter.TURN_HEADER, _turns(snap), by_encoding)


def _hot(snap: snapshots.GatewaySnapshot) -> dict[str, Json]:
    """Where the requests for busy models go, by each of their names."""
    return {name: matchers.action(_to_busy(snap, hot)) for hot in snap.hot for name in hot.names}


def _to_busy(snap: snapshots.GatewaySnapshot, hot: snapshots.HotRoute) -> Json:
    route = _route(snap, clusters.busy_cluster(hot.pool))
    known = {"filter_metadata": {"envoy.lb": {clusters.HOT_KEY: hot.name}}}
    return route | {"route": {**cast("Json", route["route"]), "metadata_match": known}}


def _turns(snap: snapshots.GatewaySnapshot) -> dict[str, Json]:
    """Where the scripts send requests: to be thrown away, or to an LLM. One look-up for both, so that LLMs cost others nothing."""
    thrown_away = matchers.action(_route(snap, clusters.NODE_HTTP))
    turns = {lua_filter.TOO_LARGE: thrown_away, lua_filter.TOO_LARGE_FOR_LLM: thrown_away}
    if snap.llms:
        by_name = matchers.lookup(
            "exact_match_map", lua_filter.MODEL_HEADER, llm_routes.by_model(snap.llms), None
        )
        turns[lua_filter.LLM] = {"matcher": by_name}
    return turns


def _by_path(
    snap: snapshots.GatewaySnapshot, targets: endpoints.Targets, special: Mapping[str, Json]
) -> Json:
    exact = {path: matchers.action(_to(snap, target)) for path, target in targets.exact.items()}
    under = {
        path: matchers.action(_to(snap, target, path)) for path, target in targets.under.items()
    }
    return matchers.lookup(
        "exact_match_map",
        ":path",
        {**exact, **special},
        matchers.lookup("prefix_match_map", ":path", under, None),
    )


def _unless_named(snap: snapshots.GatewaySnapshot, default: str) -> Json:
    """Statistics of one model are its worker's, those of all models the controller's."""
    of_all = matchers.action(_to(snap, endpoints.STATISTICS))
    return matchers.if_present(
        lua_filter.MODEL_HEADER, matchers.action(_route(snap, default)), of_all
    )


def _to(snap: snapshots.GatewaySnapshot, target: endpoints.Target, path: str = "") -> Json:
    match: Json = {"path": path} if target.is_whole_path else {"prefix": "/"}
    return _route(snap, target.cluster, is_openai=target.is_openai) | {
        "match": match | ({"grpc": {}} if target.is_grpc else {}),
        "typed_per_filter_config": _filters(snap, target),
    }


def _route(snap: snapshots.GatewaySnapshot, cluster: str, *, is_openai: bool = False) -> Json:
    """To a cluster by any path. Small, because there is one for each model that is not in the default pool."""
    action: Json = {"cluster": cluster, "timeout": "0s"}
    # The node's own server keeps deadlines by itself, and can say so on a stream that has begun: Envoy could only reset it.
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
    if snap.keys and cluster != clusters.NODE_GRPC:
        route["request_headers_to_remove"] = list(api_keys.KEY_HEADERS)
    return route


def _filters(snap: snapshots.GatewaySnapshot, target: endpoints.Target) -> Json:
    """Filters sleep where a route says nothing about them. Which of them a request meets is decided by the first route that it finds."""
    rules = api_keys.rule(target.level, snap.keys)
    if target.cluster == clusters.NODE_GRPC:
        return rules
    task = {**rules, lua_filter.FILTER: lua_filter.task(target.name_source, snap.request_bytes_max)}
    return {**task, BRIDGE: BRIDGED, ANSWERS: ANSWERED} if target.is_grpc else task
