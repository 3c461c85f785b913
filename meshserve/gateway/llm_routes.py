"""Which replicas answer for an LLM: the routes by the model's name that a request to an LLM takes once the script has found it. Pure.

The script reads in a route's metadata which LLM it is, and how long a request may wait for one that has no replica: `llm`, `wait_ms`.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable

from meshserve.core import snapshot
from meshserve.gateway import access, clusters, lua, openai

Json = dict[str, object]

ROUTE = "type.googleapis.com/envoy.config.route.v3.Route"
SESSION_HEADER = "x-session-id"
PREVIOUS_HOSTS = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
# The controller ends a wait in its own words; only if it does not, Envoy does.
WAIT_SLACK_S = 5.0
# What may stand in a path as itself, and often does.
UNQUOTED = "!$&'()*+,;=:@"
# Tokens cost: what may have reached an engine is not asked of another one.
RETRIES: Json = {
    "retry_on": "connect-failure,refused-stream",
    "num_retries": 3,
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.5s"},
    "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": PREVIOUS_HOSTS}}],
    "host_selection_retry_max_attempts": 16,
}


def by_model(llms: Iterable[snapshot.LlmRoute]) -> dict[str, Json]:
    """What each name that may be called leads to."""
    return {name: _unless_in_session(llm) for llm in sorted(llms, key=lambda llm: llm.name) for name in llm.names}


def model_paths(llms: Iterable[snapshot.LlmRoute]) -> list[str]:
    """The paths under which clients ask about one LLM where V1's models are found too, in every spelling that is usual."""
    names = [name for llm in llms for name in llm.names]
    return sorted(
        {f"{openai.MODELS}/{urllib.parse.quote(name, safe=safe)}" for name in names for safe in ("", "/", UNQUOTED, f"/{UNQUOTED}")}
    )


def _unless_in_session(llm: snapshot.LlmRoute) -> Json:
    header = {"@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": SESSION_HEADER}
    has_session = {
        "single_predicate": {
            "input": {"name": SESSION_HEADER, "typed_config": header},
            "value_match": {"safe_regex": {"google_re2": {}, "regex": ".+"}},
        }
    }
    sticky = _route(llm, clusters.sticky_cluster(llm.name))
    return {
        "matcher": {
            "matcher_list": {"matchers": [{"predicate": has_session, "on_match": _action(sticky)}]},
            "on_no_match": _action(_route(llm, clusters.llm_cluster(llm.name))),
        }
    }


def _action(route: Json) -> Json:
    return {"action": {"name": "route", "typed_config": route}}


def _route(llm: snapshot.LlmRoute, cluster: str) -> Json:
    """Without any limit of time: a model may think for an hour between two tokens."""
    known: Json = {"llm": llm.name}
    if llm.is_held:
        known["wait_ms"] = int((llm.wait_s_max + WAIT_SLACK_S) * 1000)
    return {
        "@type": ROUTE,
        "match": {"prefix": "/"},
        "metadata": {"filter_metadata": {lua.FILTER: known}},
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "hash_policy": [{"header": {"header_name": SESSION_HEADER}}],
            "regex_rewrite": openai.REWRITE,
            "retry_policy": RETRIES,
        },
        # Engines ask for no keys, and clients of OpenAI's always send one, which may be good elsewhere.
        "request_headers_to_remove": list(access.KEY_HEADERS),
        "typed_per_filter_config": {lua.FILTER: lua.no_task()},
    }
