"""Envoy's whole configuration as a function of a snapshot. Pure: the same snapshot gives the same text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import clusters, gateway_paths, listener, routes

Json = dict[str, object]

BOOTSTRAP = "bootstrap.json"
CLUSTERS = "cds.json"
ROUTES = "rds.json"
LISTENERS = "lds.json"
CONNECTIONS: Json = {
    "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
    "max_active_downstream_connections": 50_000,
}


def files(snap: snapshots.GatewaySnapshot, run_dir: str) -> dict[str, str]:
    """File name → text, in the order in which they must appear: who is named comes before who names it."""
    at = gateway_paths.GatewayPaths(run_dir)
    return {
        **{
            gateway_paths.members_file(name): _discovery([assignment])
            for name, assignment in sorted(clusters.members(snap).items())
        },
        CLUSTERS: _discovery(clusters.clusters(snap, at)),
        ROUTES: _discovery([routes.table(snap)]),
        LISTENERS: _discovery([listener.listener(snap, at)]),
        BOOTSTRAP: json.dumps(_bootstrap(snap, at)),
    }


def version(text: str) -> str:
    """The version that Envoy reports once it has accepted a discovery file."""
    return str(json.loads(text)["version_info"])


def _discovery(resources: Sequence[Json]) -> str:
    digest = hashlib.sha256(json.dumps(resources).encode()).hexdigest()[:16]
    return json.dumps({"version_info": digest, "resources": resources})


def _bootstrap(snap: snapshots.GatewaySnapshot, at: gateway_paths.GatewayPaths) -> Json:
    return {
        "node": {"id": f"gateway-{snap.node}", "cluster": "meshserve"},
        "admin": {"address": {"pipe": {"path": at.admin_socket, "mode": 0o600}}},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": CONNECTIONS,
                }
            ]
        },
        "dynamic_resources": {
            "cds_config": _file(at, CLUSTERS),
            "lds_config": _file(at, LISTENERS),
        },
    }


def _file(at: gateway_paths.GatewayPaths, name: str) -> Json:
    return {"path_config_source": {"path": at.config(name)}, "resource_api_version": "V3"}
