"""Who may call what: Envoy's API key filter, switched by route so that keys change without touching the listener. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from meshserve.core.values import snapshots

Json = dict[str, object]

FILTER = "envoy.filters.http.api_key_auth"
CLIENT_HEADER = "x-mesh-client"
KEY_HEADERS = ("authorization", "x-api-key")
API_KEYS = "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth"
API_KEYS_ROUTE = (
    "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuthPerRoute"
)


class AccessLevel(enum.Enum):
    """Who may: everybody, every client with a key, clients with an admin's key."""

    OPEN = "open"
    CLIENT = "client"
    ADMIN = "admin"


def http_filter() -> Json:
    """The filter itself, which knows where keys are found but not one of them; it sleeps where a route has no rule."""
    return {
        "name": FILTER,
        "disabled": True,
        "typed_config": {
            "@type": API_KEYS,
            "key_sources": [{"header": header} for header in KEY_HEADERS],
        },
    }


def rule(level: AccessLevel, keys: Sequence[snapshots.ApiKey]) -> Json:
    """The filter's settings for paths of that level, as entries of `typed_per_filter_config`: none where everybody may."""
    if not keys or level is AccessLevel.OPEN:
        return {}
    return {FILTER: _admins_only(keys) if level is AccessLevel.ADMIN else _all_clients(keys)}


def _all_clients(keys: Sequence[snapshots.ApiKey]) -> Json:
    return _rule({key.key: key.client for key in keys})


def _admins_only(keys: Sequence[snapshots.ApiKey]) -> Json:
    # Rights belong to keys, the filter knows clients: keys without rights are given to a client that is nobody.
    # The list of the allowed must not be empty, which would allow all.
    admins = sorted({key.client for key in keys if key.admin})
    nobody = "-" + "".join(key.client for key in keys)
    return _rule({key.key: key.client if key.admin else nobody for key in keys}) | {
        "allowed_clients": admins or [f"-{nobody}"]
    }


def _rule(clients: dict[str, str]) -> Json:
    return {
        "@type": API_KEYS_ROUTE,
        "credentials": [{"key": key, "client": client} for key, client in clients.items()],
        "forwarding": {"header": CLIENT_HEADER},
    }
