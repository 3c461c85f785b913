"""Envoy's own listeners that lead to any worker of a pool. Pure.

No client reaches them. Envoy sends requests there itself when all workers of a pool seem unhealthy:
see `ring_shares`.
"""

from __future__ import annotations

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import Json, clusters, gateway_paths, listener

PROXY = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"


def listeners(snap: snapshots.GatewaySnapshot, layout: gateway_paths.GatewayPaths) -> list[Json]:
    """Return a listener for each pool, on a Unix socket that only this user can open."""
    return [_listener(pool, layout) for pool in sorted(snap.pools)]


def _listener(pool: str, layout: gateway_paths.GatewayPaths) -> Json:
    name = f"any-{pool}"
    # Bytes pass unchanged, so that requests come with all that the pool's own cluster has added.
    proxy: Json = {"@type": PROXY, "stat_prefix": name, "cluster": clusters.busy_cluster(pool)}
    return {
        "@type": listener.LISTENER,
        "name": name,
        "address": {"pipe": {"path": layout.any_worker_socket(pool), "mode": 0o600}},
        "filter_chains": [{"filters": [{"name": "any-worker", "typed_config": proxy}]}],
    }
