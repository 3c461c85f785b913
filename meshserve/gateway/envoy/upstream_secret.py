"""The mesh's secret in Envoy's requests to the mesh's servers and in its health checks. Pure.

It is a setting of the clusters and not of the routes: so it is also in the requests of scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from meshserve.gateway.envoy import Json, clusters, listener
from meshserve.protocol import paths

FILTER = "mesh-secret"
CODEC = "envoy.filters.http.upstream_codec"
CODEC_CONFIG = "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"


def add(to: Sequence[Json], secret: str) -> list[Json]:
    """Return the clusters with the secret, or as they are without one.

    The sidecar's do not get it: its sockets are on the same node and reached by no other.
    """
    if not secret:
        return list(to)
    return [_guarded(cluster, secret) if cluster["type"] == "EDS" else cluster for cluster in to]


def _guarded(cluster: Json, secret: str) -> Json:
    header: Json = {
        "header": {"key": paths.SECRET_HEADER, "value": secret},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    mutations = {"request_mutations": [{"append": header}]}
    filters = [
        {
            "name": FILTER,
            "typed_config": {"@type": listener.MUTATION, "mutations": mutations},
        },
        # What sends the request: the last filter of each such chain, named once there are others.
        {"name": CODEC, "typed_config": {"@type": CODEC_CONFIG}},
    ]
    options = cast("Json", cluster["typed_extension_protocol_options"])
    http = cast("Json", options[clusters.HTTP_OPTIONS])
    checks = cast("list[Json]", cluster.get("health_checks", []))
    return cluster | {
        "typed_extension_protocol_options": {
            **options,
            clusters.HTTP_OPTIONS: {**http, "http_filters": filters},
        },
        "health_checks": [_checked(check, header) for check in checks],
    }


def _checked(check: Json, header: Json) -> Json:
    http = cast("Json", check["http_health_check"])
    return check | {"http_health_check": {**http, "request_headers_to_add": [header]}}
