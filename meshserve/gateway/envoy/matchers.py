"""The pieces of Envoy's route tables and filters: look-ups by a header's value. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from meshserve.gateway.envoy import Json

ROUTE = "type.googleapis.com/envoy.config.route.v3.Route"
HEADER_INPUT = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
PREVIOUS_HOSTS = (
    "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
)
# Makes a retry go to another member of the cluster, if it has one.
OTHER_HOSTS: list[Json] = [
    {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {"@type": PREVIOUS_HOSTS},
    }
]


def has_header(name: str, match: Json, *, is_inverted: bool = False) -> Json:
    """Return Envoy's access-log filter for requests with this header, or without it."""
    header = {"name": name, "string_match": match, "invert_match": is_inverted}
    return {"header_filter": {"header": header}}


def action(route: Json) -> Json:
    """Return the action that ends a look-up: take this route."""
    return {"action": {"name": "route", "typed_config": route}}


def exact(header: str, entries: Mapping[str, Json], otherwise: Json | None) -> Json:
    """Return a look-up of the header's value among the keys of `entries`."""
    return _lookup("exact_match_map", header, entries, otherwise)


def longest_prefix(header: str, entries: Mapping[str, Json]) -> Json:
    """Return a look-up of the longest key that the header's value begins with."""
    return _lookup("prefix_match_map", header, entries, None)


def if_present(header: str, then: Json, otherwise: Json) -> Json:
    """Return a choice between two actions, by whether the header is present and not empty."""
    predicate = {
        "single_predicate": {
            "input": _header(header),
            "value_match": {"safe_regex": {"google_re2": {}, "regex": ".+"}},
        }
    }
    return {
        "matcher": {
            "matcher_list": {"matchers": [{"predicate": predicate, "on_match": then}]},
            "on_no_match": otherwise,
        }
    }


def _lookup(kind: str, header: str, entries: Mapping[str, Json], otherwise: Json | None) -> Json:
    # Envoy refuses a look-up without entries.
    if not entries and otherwise is not None:
        return otherwise
    tree: Json = {"matcher_tree": {"input": _header(header), kind: {"map": dict(entries)}}}
    return tree if otherwise is None else tree | {"on_no_match": {"matcher": otherwise}}


def _header(name: str) -> Json:
    return {"name": name, "typed_config": {"@type": HEADER_INPUT, "header_name": name}}
