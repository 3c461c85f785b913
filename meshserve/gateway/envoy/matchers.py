"""What Envoy's route tables are made of: look-ups by a header's value that end in routes. Pure."""

from __future__ import annotations

from collections.abc import Mapping

Json = dict[str, object]

ROUTE = "type.googleapis.com/envoy.config.route.v3.Route"
HEADER_INPUT = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
PREVIOUS_HOSTS = (
    "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
)
# A second attempt goes to somebody else, where there is one.
ELSEWHERE: list[Json] = [
    {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {"@type": PREVIOUS_HOSTS},
    }
]


def action(route: Json) -> Json:
    """The end of a look-up: this route."""
    return {"action": {"name": "route", "typed_config": route}}


def lookup(kind: str, header: str, entries: Mapping[str, Json], otherwise: Json | None) -> Json:
    """One look-up of a header's value; without entries it is left out, because Envoy takes no empty one."""
    if not entries and otherwise is not None:
        return otherwise
    found = {"input": _header(header), kind: {"map": dict(entries)}}
    return (
        {"matcher_tree": found}
        if otherwise is None
        else {"matcher_tree": found, "on_no_match": {"matcher": otherwise}}
    )


def if_present(header: str, then: Json, otherwise: Json) -> Json:
    """One of two ends, by whether the header is there and not empty."""
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


def _header(name: str) -> Json:
    return {"name": name, "typed_config": {"@type": HEADER_INPUT, "header_name": name}}
