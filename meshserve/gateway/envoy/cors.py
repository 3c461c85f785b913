"""Envoy's CORS filter: which web pages may call the mesh from a browser. Pure.

The origins come with the route table, so that they change without closing connections.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshserve.gateway.envoy import Json

FILTER = "envoy.filters.http.cors"
CORS = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"
CORS_POLICY = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy"
ANY = "*"
METHODS = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
# The star does not stand for `authorization` (https://fetch.spec.whatwg.org/#http-responses).
HEADERS = "*, authorization"
EXPOSED = "*"
MAX_AGE_S = "600"


def http_filter() -> Json:
    """Return the filter, which does nothing without a policy."""
    return {"name": FILTER, "typed_config": {"@type": CORS}}


def policy(origins: Sequence[str]) -> Json:
    """Return the settings for all paths as an entry of `typed_per_filter_config`.

    An origin is a scheme and a host, with a port if need be, or `*` for all. Without origins there
    is no entry.
    """
    if not origins:
        return {}
    matches: list[Json] = [
        {"safe_regex": {"regex": ".*"}} if origin == ANY else {"exact": origin}
        for origin in origins
    ]
    return {
        FILTER: {
            "@type": CORS_POLICY,
            "allow_origin_string_match": matches,
            "allow_methods": METHODS,
            "allow_headers": HEADERS,
            "expose_headers": EXPOSED,
            "max_age": MAX_AGE_S,
        }
    }
