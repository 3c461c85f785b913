"""Settings of Envoy's API key filter, which decides which clients may call a path.

The keys are part of the route table, so that a change of keys closes no connections. No I/O.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import Json
from meshserve.protocol import paths

FILTER = "envoy.filters.http.api_key_auth"
KEY_HEADERS = ("authorization", "x-api-key")
# Schemes are case-insensitive (RFC 9110, 11.1), but the filter strips only `Bearer ` from a key.
# The two other spellings that clients use are therefore keys of their own.
SCHEMES = ("", "bearer ", "BEARER ")
API_KEYS = "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth"
API_KEYS_ROUTE = (
    "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuthPerRoute"
)


class AccessLevel(enum.Enum):
    """Who may call a path: all clients, all clients with a key, or clients with an admin's key."""

    OPEN = "open"
    CLIENT = "client"
    ADMIN = "admin"


def http_filter() -> Json:
    """Return the filter without keys; it is disabled on routes without a `rule`."""
    return {
        "name": FILTER,
        "disabled": True,
        "typed_config": {
            "@type": API_KEYS,
            "key_sources": [{"header": header} for header in KEY_HEADERS],
        },
    }


def rule(level: AccessLevel, keys: Sequence[snapshots.ApiKey]) -> Json:
    """Return the filter's settings for a level as an entry of `typed_per_filter_config`.

    Without keys, and on open paths, there is no entry.
    """
    if not keys or level is AccessLevel.OPEN:
        return {}
    return {FILTER: _admins_only(keys) if level is AccessLevel.ADMIN else _all_clients(keys)}


def _all_clients(keys: Sequence[snapshots.ApiKey]) -> Json:
    return _rule({key.key: key.client for key in keys})


def _admins_only(keys: Sequence[snapshots.ApiKey]) -> Json:
    # In our configuration a key is an admin's, in the filter a client is, and a client may have
    # keys of both kinds. So keys that are no admin's are given to a client that does not exist.
    admins = sorted({key.client for key in keys if key.admin})
    no_client = "-" + "".join(key.client for key in keys)
    clients = {key.key: key.client if key.admin else no_client for key in keys}
    # To the filter an empty list means that every client is allowed.
    return _rule(clients) | {"allowed_clients": admins or [f"-{no_client}"]}


def _rule(clients: dict[str, str]) -> Json:
    credentials = [
        {"key": f"{scheme}{key}", "client": client}
        for key, client in clients.items()
        for scheme in SCHEMES
    ]
    return {
        "@type": API_KEYS_ROUTE,
        "credentials": credentials,
        "forwarding": {"header": paths.CLIENT_HEADER},
    }
