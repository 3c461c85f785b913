"""Which replicas answer for an LLM: the routes by the model's name that a request to an LLM takes once the script has found it. Pure.

The script reads in a route's metadata which LLM it is, and how long a request may wait for one that has no replica: `llm`, `wait_ms`.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import api_keys, clusters, lua_filter, matchers, openai_errors
from meshserve.protocol import paths

Json = dict[str, object]

SESSION_HEADER = "x-session-id"
# The controller ends a wait in its own words; only if it does not, Envoy does.
WAIT_SLACK_S = 5.0
# What may stand in a path as itself, and often does.
UNQUOTED = "!$&'()*+,;=:@"
# Tokens cost: what may have reached an engine is not asked of another one.
RETRIES: Json = {
    "retry_on": "connect-failure,refused-stream",
    "num_retries": 3,
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.5s"},
    "retry_host_predicate": matchers.ELSEWHERE,
    "host_selection_retry_max_attempts": 16,
}


def by_model(llms: Iterable[snapshots.LlmRoute]) -> dict[str, Json]:
    """What each name that may be called leads to."""
    return {
        name: _unless_in_session(llm)
        for llm in sorted(llms, key=lambda llm: llm.name)
        for name in llm.names
    }


def model_paths(llms: Iterable[snapshots.LlmRoute]) -> list[str]:
    """The paths under which clients ask about one LLM where V1's models are found too, in every spelling that is usual."""
    names = [name for llm in llms for name in llm.names]
    return sorted(
        {
            f"{paths.OPENAI_MODELS}/{urllib.parse.quote(name, safe=safe)}"
            for name in names
            for safe in ("", "/", UNQUOTED, f"/{UNQUOTED}")
        }
    )


def _unless_in_session(llm: snapshots.LlmRoute) -> Json:
    sticky, least_busy = (
        _route(llm, cluster(llm.name))
        for cluster in (clusters.sticky_cluster, clusters.llm_cluster)
    )
    return matchers.if_present(SESSION_HEADER, matchers.action(sticky), matchers.action(least_busy))


def _route(llm: snapshots.LlmRoute, cluster: str) -> Json:
    """Without any limit of time: a model may think for an hour between two tokens."""
    known: Json = {"llm": llm.name}
    if llm.is_held:
        known["wait_ms"] = int((llm.wait_s_max + WAIT_SLACK_S) * 1000)
    return {
        "@type": matchers.ROUTE,
        "match": {"prefix": "/"},
        "metadata": {"filter_metadata": {lua_filter.FILTER: known}},
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "hash_policy": [{"header": {"header_name": SESSION_HEADER}}],
            "regex_rewrite": openai_errors.REWRITE,
            "retry_policy": RETRIES,
        },
        # Engines ask for no keys, and clients of OpenAI's always send one, which may be good elsewhere.
        "request_headers_to_remove": list(api_keys.KEY_HEADERS),
        "typed_per_filter_config": {lua_filter.FILTER: lua_filter.no_task()},
    }
