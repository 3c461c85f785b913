"""Envoy's configuration as a function of a snapshot. Pure: equal snapshots give equal text."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import (
    Json,
    any_worker,
    clusters,
    gateway_paths,
    listener,
    routes,
    upstream_secret,
)

BOOTSTRAP = "bootstrap.json"
CLUSTERS = "cds.json"
ROUTES = "rds.json"
LISTENERS = "lds.json"
CONNECTIONS: Json = {
    "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3"
    ".DownstreamConnectionsConfig",
    "max_active_downstream_connections": 50_000,
}


def files(
    snap: snapshots.GatewaySnapshot,
    run_dir: str,
    secret: str = "",
    logs: gateway_paths.GatewayLogs | None = None,
    module: str = "",
) -> dict[str, str]:
    """Return the text of each file by its name, in the order in which they must be written.

    A resource comes before the ones that name it. Envoy sends `secret` to the mesh's servers, if
    they ask for one. `module` is the file of the module in C, "" without one.
    """
    snap = dataclasses.replace(snap, module=module if snap.is_native else "")
    layout = gateway_paths.GatewayPaths(run_dir, logs, snap.module)
    members = {
        gateway_paths.members_file(name): _discovery([assignment])
        for name, assignment in sorted(clusters.members(snap, layout).items())
    }
    return {
        **members,
        CLUSTERS: _discovery(upstream_secret.add(clusters.clusters(snap, layout), secret)),
        ROUTES: _discovery([routes.table(snap)]),
        LISTENERS: _discovery(
            [listener.listener(snap, layout), *any_worker.listeners(snap, layout)]
        ),
        BOOTSTRAP: json.dumps(_bootstrap(snap, layout)),
    }


def version(text: str) -> str:
    """Return the version that Envoy reports once it has accepted this file."""
    return str(json.loads(text)["version_info"])


def _discovery(resources: Sequence[Json]) -> str:
    # By content, because Envoy reports the version that it works by: equal content needs no wait.
    digest = hashlib.sha256(json.dumps(resources).encode()).hexdigest()[:16]
    return json.dumps({"version_info": digest, "resources": resources})


def _bootstrap(snap: snapshots.GatewaySnapshot, layout: gateway_paths.GatewayPaths) -> Json:
    connections = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": CONNECTIONS,
    }
    return {
        "node": {"id": f"gateway-{snap.node}", "cluster": "meshserve"},
        # For the owner alone: who reaches the administration can stop Envoy and read its keys.
        "admin": {"address": {"pipe": {"path": layout.admin_socket, "mode": 0o600}}},
        "overload_manager": {"resource_monitors": [connections]},
        "dynamic_resources": {
            "cds_config": layout.source(CLUSTERS),
            "lds_config": layout.source(LISTENERS),
        },
    }
