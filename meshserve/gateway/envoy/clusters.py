"""Who can answer: Envoy's clusters, and the members of each, from a snapshot. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from meshserve.core.processes import hash_ring
from meshserve.core.values import model, snapshots
from meshserve.gateway.envoy import gateway_paths
from meshserve.protocol import paths, sockets

Json = dict[str, object]

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
# Well below the servers' own: who closes an idle connection must be the side that would use it next, or requests race with the close.
IDLE_TIMEOUT = f"{sockets.KEEP_ALIVE_S // 60}s"
# HTTP/1.1 needs a connection for each request in flight; queues are bounded in the workers, where the reason can be told.
IN_FLIGHT_MAX = 1_000_000


def pool_cluster(pool: str) -> str:
    """The name of a pool's cluster."""
    return f"pool-{pool}"


def llm_cluster(llm: str) -> str:
    """The name of the cluster of an LLM's replicas, of which the least busy answers."""
    return f"llm-{llm}"


def sticky_cluster(llm: str) -> str:
    """The name of the cluster of the same replicas, of which a session always gets the same."""
    return f"sticky-{llm}"


def busy_cluster(pool: str) -> str:
    """The name of the cluster of the pool's workers for models that are on several of them, of which the least busy answers."""
    return f"busy-{pool}"


def clusters(snap: snapshots.GatewaySnapshot, at: gateway_paths.GatewayPaths) -> list[Json]:
    """Every cluster: two for each pool, two for each LLM, the controller, the node's own two servers."""
    llms = sorted(llm.name for llm in snap.llms)
    return [
        *(
            _pool(pool, snap.ring_sizes.get(pool, hash_ring.RING_SIZE_MIN), at)
            for pool in sorted(snap.pools)
        ),
        *(_busy(pool, at) for pool in sorted(snap.pools)),
        *(_llm(llm, at) for llm in llms),
        *(_sticky(llm, at) for llm in llms),
        _changing(CONTROLLER, at),
        _node(NODE_HTTP, at.http_socket, "http_protocol_options"),
        _node(NODE_GRPC, at.grpc_socket, "http2_protocol_options"),
    ]


def members(snap: snapshots.GatewaySnapshot) -> dict[str, Json]:
    """The assignment of each cluster whose members change, by cluster name."""
    assignments = {
        pool_cluster(pool): _pool_members(pool_members, snap.node)
        for pool, pool_members in snap.pools.items()
    }
    for llm in snap.llms:
        replicas = _pool_members(llm.members, snap.node)
        assignments |= {llm_cluster(llm.name): replicas, sticky_cluster(llm.name): replicas}
    assignments |= {busy_cluster(pool): _busy_members(snap, pool) for pool in snap.pools}
    controller: list[Json] = (
        []
        if snap.controller is None
        else [{"endpoint": {"address": _address(snap.controller, snap.node)}}]
    )
    return {
        name: _assignment(name, endpoints)
        for name, endpoints in {**assignments, CONTROLLER: controller}.items()
    }


def _pool_members(pool_members: Sequence[snapshots.RingMember], node: str) -> list[Json]:
    # The order decides about rounding on the ring, so it must be placement's.
    return [
        _pool_member(member, node)
        for member in sorted(pool_members, key=lambda member: member.worker_id)
    ]


def _busy_members(snap: snapshots.GatewaySnapshot, pool: str) -> list[Json]:
    """The pool's members, each with the models that several have."""
    on: dict[str, list[str]] = {}
    for hot in snap.hot:
        for worker_id in hot.worker_ids if hot.pool == pool else ():
            on.setdefault(worker_id, []).append(hot.name)
    return [
        _member(each, snap.node, {HOT_KEY: on.get(each.worker_id, [])}) for each in snap.pools[pool]
    ]


def _pool_member(member: snapshots.RingMember, node: str) -> Json:
    return _member(member, node, {"hash_key": member.worker_id})


def _member(member: snapshots.RingMember, node: str, known: Json) -> Json:
    return {
        "endpoint": {"address": _address(member.endpoint, node)},
        "health_status": "HEALTHY" if member.ready else "UNHEALTHY",
        "metadata": {"filter_metadata": {"envoy.lb": known}},
    }


def _address(endpoint: model.Endpoint, node: str) -> Json:
    if endpoint.socket_path and endpoint.node == node:
        return {"pipe": {"path": endpoint.socket_path}}
    return {"socket_address": {"address": endpoint.host, "port_value": endpoint.port}}


def _assignment(cluster: str, endpoints: Sequence[Json]) -> Json:
    return {
        "@type": ASSIGNMENT,
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": list(endpoints)}],
    }


def _pool(pool: str, ring_size: int, at: gateway_paths.GatewayPaths) -> Json:
    return _checked(pool_cluster(pool), at) | {
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": ring_size, "hash_function": "XX_HASH"},
    }


def _busy(pool: str, at: gateway_paths.GatewayPaths) -> Json:
    # Where a route asks for a model that is on no worker, it has changed this very moment: any worker can load it.
    subsets = {
        "fallback_policy": "ANY_ENDPOINT",
        "list_as_any": True,
        "subset_selectors": [{"keys": [HOT_KEY]}],
    }
    return _checked(busy_cluster(pool), at) | {
        "lb_policy": "LEAST_REQUEST",
        "lb_subset_config": subsets,
    }


def _checked(name: str, at: gateway_paths.GatewayPaths) -> Json:
    return _changing(name, at) | {
        # One per cent is less than one worker of a hundred: when all seem unhealthy, requests are tried instead of refused.
        # Without a merge window a change of readiness counts at once, not a second later.
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}, "update_merge_window": "0s"},
        "ignore_health_on_host_removal": True,
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "0.5s",
                "no_traffic_interval": "0.5s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": paths.HEALTHZ},
            }
        ],
    }


def _llm(llm: str, at: gateway_paths.GatewayPaths) -> Json:
    # All are looked at: there are few, and two of them taken by chance may both be busy.
    least = {"@type": LEAST_REQUEST, "selection_method": "FULL_SCAN"}
    policy = {"typed_extension_config": {"name": "least-request", "typed_config": least}}
    return _replicas(llm_cluster(llm), at) | {"load_balancing_policy": {"policies": [policy]}}


def _sticky(llm: str, at: gateway_paths.GatewayPaths) -> Json:
    return _replicas(sticky_cluster(llm), at) | {"lb_policy": "RING_HASH"}


def _replicas(name: str, at: gateway_paths.GatewayPaths) -> Json:
    # No health checks: a busy engine answers them late, and the controller knows more. One that is not ready gets nothing, even where
    # there is no other.
    return _changing(name, at) | {
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"}
    }


def _changing(name: str, at: gateway_paths.GatewayPaths) -> Json:
    source = {
        "path_config_source": {"path": at.config(gateway_paths.members_file(name))},
        "resource_api_version": "V3",
    }
    return _cluster(name, "http_protocol_options") | {
        "type": "EDS",
        "eds_cluster_config": {"eds_config": source},
    }


def _node(name: str, socket_path: str, protocol: str) -> Json:
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
        "retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 1000},
    }
