"""Envoy's clusters, which are the groups of servers that can answer, and their members. Pure."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import cast

from meshserve.core.values import model, snapshots
from meshserve.gateway.envoy import Json, gateway_paths, native_calls, ring_shares
from meshserve.protocol import paths, sockets

CONTROLLER = "controller"
NODE_GRPC = "node-grpc"
NODE_HTTP = "node-http"
ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
LEAST_REQUEST = (
    "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"
)
HOT_KEY = "hot"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# Well below the servers' own. The side that would use an idle connection next must be the one that
# closes it, or requests race with the close.
IDLE_TIMEOUT = f"{sockets.KEEP_ALIVE_S // 60}s"
# HTTP/1.1 needs a connection for each request in flight. Workers bound their queues themselves, and
# their refusals give the reason.
IN_FLIGHT_MAX = 1_000_000
# A killed replica is the least busy one, as nothing reaches it: each retry would choose it again
# until the controller, which may be away, tells of its end. After two failures to connect, or of
# connections, it gets nothing for a second, and for longer the next times; never the only replica.
SKIP_DEAD: Json = {
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 2,
    "enforcing_local_origin_success_rate": 0,
    "enforcing_success_rate": 0,
    "enforcing_consecutive_5xx": 0,
    "enforcing_consecutive_gateway_failure": 0,
    "interval": "0.5s",
    "base_ejection_time": "1s",
    "max_ejection_time": "5s",
    "max_ejection_percent": 50,
}
# What ends the connections to another node that does not answer on the network any more, so that
# their requests go to another server; Linux itself would go on for a quarter of an hour. A process
# that is only busy has a kernel that answers. Pipes ignore both.
TCP_USER_TIMEOUT: Json = {
    "description": "TCP_USER_TIMEOUT, in ms",
    "level": socket.IPPROTO_TCP,
    "name": socket.TCP_USER_TIMEOUT,
    "int_value": 6000,
    "state": "STATE_PREBIND",
}
# For requests that had arrived: nothing more is sent, whose missing acknowledgement would tell.
TCP_KEEPALIVE: Json = {"keepalive_time": 2, "keepalive_interval": 1, "keepalive_probes": 4}
# A change of a member's readiness counts at once, not after Envoy's default of a second.
NO_MERGE_WINDOW = "0s"


def pool_cluster(pool: str) -> str:
    """Return the cluster of a pool's workers, of which a model's name chooses one."""
    return f"pool-{pool}"


def busy_cluster(pool: str) -> str:
    """Return the cluster for hot models: the least busy of a model's several workers answers."""
    return f"busy-{pool}"


def llm_cluster(llm: str) -> str:
    """Return the cluster of an LLM's replicas, of which the least busy answers."""
    return f"llm-{llm}"


def sticky_cluster(llm: str) -> str:
    """Return the cluster of the same replicas for sessions: each stays with one replica."""
    return f"sticky-{llm}"


def clusters(snap: snapshots.GatewaySnapshot, layout: gateway_paths.GatewayPaths) -> list[Json]:
    """Return two clusters for each pool and each LLM, the controller's, and the sidecar's two."""
    pools = sorted(snap.pools)
    # An LLM's clusters exist from its declaration on, without members at first: a stream keeps the
    # route table that it began with, but sees the members of the moment in which it goes on.
    llms = sorted(llm.name for llm in snap.llms)
    return [
        *(_pool(pool, len(snap.pools[pool]), layout) for pool in pools),
        *(_busy(pool, layout) for pool in pools),
        *(_llm(llm, layout) for llm in llms),
        *(_sticky(llm, layout) for llm in llms),
        _discovered(CONTROLLER, layout),
        _sidecar(NODE_HTTP, layout.http_socket, "http_protocol_options"),
        _sidecar(NODE_GRPC, layout.grpc_socket, "http2_protocol_options"),
    ]


def members(snap: snapshots.GatewaySnapshot, layout: gateway_paths.GatewayPaths) -> dict[str, Json]:
    """Return the members of each cluster whose members change, by cluster name."""
    assignments = {
        pool_cluster(pool): _assignment(
            pool_cluster(pool),
            ring_shares.localities(
                {member.worker_id: _ring_member(member, snap.node) for member in ring},
                layout.any_worker_socket(pool),
            ),
        )
        for pool, ring in snap.pools.items()
    }
    members_by_cluster: dict[str, list[Json]] = {}
    for llm in snap.llms:
        replicas = _ring(llm.members, snap.node)
        members_by_cluster[llm_cluster(llm.name)] = replicas
        members_by_cluster[sticky_cluster(llm.name)] = replicas
    for pool in snap.pools:
        members_by_cluster[busy_cluster(pool)] = _busy_members(snap, pool)
    members_by_cluster[CONTROLLER] = (
        []
        if snap.controller is None
        else [{"endpoint": {"address": _address(snap.controller, snap.node)}}]
    )
    return assignments | {
        name: _assignment(name, [{"lb_endpoints": endpoints}])
        for name, endpoints in members_by_cluster.items()
    }


def _ring_member(member: snapshots.RingMember, node: str) -> Json:
    return _member(member, node, {"hash_key": member.worker_id})


def _ring(ring: Sequence[snapshots.RingMember], node: str) -> list[Json]:
    return [
        _ring_member(member, node) for member in sorted(ring, key=lambda member: member.worker_id)
    ]


def _busy_members(snap: snapshots.GatewaySnapshot, pool: str) -> list[Json]:
    """Return the pool's members, each with the hot models that it serves as metadata.

    Metadata instead of a cluster for each model: no cluster comes or goes, and a request that was
    routed a moment ago still finds a worker.
    """
    models: dict[str, list[str]] = {}
    for hot in snap.hot:
        for worker_id in hot.worker_ids if hot.pool == pool else ():
            models.setdefault(worker_id, []).append(hot.name)
    return [
        _member(member, snap.node, {HOT_KEY: models.get(member.worker_id, [])})
        for member in snap.pools[pool]
    ]


def _member(member: snapshots.RingMember, node: str, metadata: Json) -> Json:
    return {
        "endpoint": {"address": _address(member.endpoint, node)},
        "health_status": "HEALTHY" if member.ready else "UNHEALTHY",
        "metadata": {"filter_metadata": {"envoy.lb": metadata}},
    }


def _address(endpoint: model.Endpoint, node: str) -> Json:
    if endpoint.socket_path and endpoint.node == node:
        return {"pipe": {"path": endpoint.socket_path}}
    return {"socket_address": {"address": endpoint.host, "port_value": endpoint.port}}


def _assignment(cluster: str, localities: list[Json]) -> Json:
    return {"@type": ASSIGNMENT, "cluster_name": cluster, "endpoints": localities}


def _pool(pool: str, workers: int, layout: gateway_paths.GatewayPaths) -> Json:
    checked = _health_checked(pool_cluster(pool), layout, {"locality_weighted_lb_config": {}})
    return checked | ring_shares.policy(workers)


def _busy(pool: str, layout: gateway_paths.GatewayPaths) -> Json:
    # A route may ask for a model that left every worker a moment ago: any worker can load it.
    subsets = {
        "fallback_policy": "ANY_ENDPOINT",
        "list_as_any": True,
        "subset_selectors": [{"keys": [HOT_KEY]}],
    }
    return _health_checked(busy_cluster(pool), layout, {}) | {
        "lb_policy": "LEAST_REQUEST",
        "lb_subset_config": subsets,
    }


def _health_checked(name: str, layout: gateway_paths.GatewayPaths, balancing: Json) -> Json:
    check = {
        "timeout": "2s",
        "interval": "0.5s",
        "no_traffic_interval": "0.5s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {"path": paths.HEALTHZ},
    }
    cluster = _discovered(name, layout)
    options = cast("Json", cluster["typed_extension_protocol_options"])
    frames = native_calls.upstream(layout.module, options, IDLE_TIMEOUT)
    balanced = {
        # Below the share of one worker in any pool of less than a hundred: only when all seem
        # unhealthy, requests are tried all the same instead of refused.
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 1},
            "update_merge_window": NO_MERGE_WINDOW,
            **balancing,
        },
        "ignore_health_on_host_removal": True,
        "health_checks": [check],
    }
    return cluster | frames | balanced


def _llm(llm: str, layout: gateway_paths.GatewayPaths) -> Json:
    # Of two replicas chosen by chance, Envoy's default, both may be busy; and there are few.
    least = {"@type": LEAST_REQUEST, "selection_method": "FULL_SCAN"}
    policy = {"typed_extension_config": {"name": "least-request", "typed_config": least}}
    return _replicas(llm_cluster(llm), layout) | {"load_balancing_policy": {"policies": [policy]}}


def _sticky(llm: str, layout: gateway_paths.GatewayPaths) -> Json:
    return _replicas(sticky_cluster(llm), layout) | {"lb_policy": "RING_HASH"}


def _replicas(name: str, layout: gateway_paths.GatewayPaths) -> Json:
    # Without health checks, because a busy engine answers them late and the controller knows more.
    # A replica that is not ready gets no request, even if there is no other: no panic.
    return _discovered(name, layout) | {
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 0},
            "update_merge_window": NO_MERGE_WINDOW,
        },
        "outlier_detection": SKIP_DEAD,
    }


def _discovered(name: str, layout: gateway_paths.GatewayPaths) -> Json:
    source = layout.source(gateway_paths.members_file(name))
    return _cluster(name, "http_protocol_options") | {
        "type": "EDS",
        "eds_cluster_config": {"eds_config": source},
        "upstream_bind_config": {"socket_options": [TCP_USER_TIMEOUT]},
        "upstream_connection_options": {"tcp_keepalive": TCP_KEEPALIVE},
    }


def _sidecar(name: str, socket_path: str, protocol: str) -> Json:
    endpoint = {"endpoint": {"address": {"pipe": {"path": socket_path}}}}
    return _cluster(name, protocol) | {
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _cluster(name: str, protocol: str) -> Json:
    return {
        "@type": CLUSTER,
        "name": name,
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [_thresholds("DEFAULT"), _thresholds("HIGH")]},
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                "common_http_protocol_options": {"idle_timeout": IDLE_TIMEOUT},
                "explicit_http_config": {protocol: {}},
            }
        },
    }


def _thresholds(priority: str) -> Json:
    return {
        "priority": priority,
        "max_connections": IN_FLIGHT_MAX,
        "max_pending_requests": IN_FLIGHT_MAX,
        "max_requests": IN_FLIGHT_MAX,
        # At most half of the requests in flight may be retries: without a bound they would double a
        # load that is too high already.
        "retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 1000},
    }
