"""The routes to LLMs, by the model's name, once the script has set it as a header. Pure.

The script reads in a route's metadata which LLM it leads to (`llm`) and, if the LLM has no ready
replica, how long a request may wait for one (`wait_ms`).
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import (
    Json,
    api_keys,
    clusters,
    lua_filter,
    matchers,
    openai_errors,
)
from meshserve.protocol import paths

SESSION_HEADER = "x-session-id"
# The controller ends a wait with a reason; only if it fails to, Envoy ends it.
WAIT_SLACK_S = 5.0
# Replicas do not know the aliases, so that moving one changes no engine.
IS_ALIAS: Json = {
    "header": {"key": paths.IS_ALIAS_HEADER, "value": "yes"},
    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
}
# Characters that are valid in a path, and that clients often leave unquoted.
UNQUOTED = "!$&'()*+,;=:@"
# Tokens cost: a request that may have reached an engine is not sent to another one.
RETRIES: Json = {
    "retry_on": "connect-failure,refused-stream",
    "num_retries": 3,
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.5s"},
    "retry_host_predicate": matchers.OTHER_HOSTS,
    "host_selection_retry_max_attempts": 16,
}


def by_model(llms: Iterable[snapshots.LlmRoute]) -> dict[str, Json]:
    """Return the action for each name of each LLM."""
    return {
        name: _least_busy_or_sticky(llm, is_alias=name in llm.aliases)
        for llm in sorted(llms, key=lambda llm: llm.name)
        for name in llm.names
    }


def model_paths(llms: Iterable[snapshots.LlmRoute]) -> list[str]:
    """Return OpenAI's paths of single LLMs, in every usual spelling.

    They need routes of their own, because V1's models have the same prefix.
    """
    names = [name for llm in llms for name in llm.names]
    return sorted(
        {
            f"{paths.OPENAI_MODELS}/{urllib.parse.quote(name, safe=safe)}"
            for name in names
            for safe in ("", "/", UNQUOTED, f"/{UNQUOTED}")
        }
    )


def generate_paths(llms: Iterable[snapshots.LlmRoute]) -> list[str]:
    """Return the Open Inference Protocol's paths of LLMs, in every usual spelling.

    They need routes of their own, because small models have the same prefix. An LLM's only version
    is 1.
    """
    return [
        f"{paths.V2_MODELS}{path.removeprefix(paths.V1_MODELS)}{version}/{verb}"
        for path in model_paths(llms)
        for version in ("", "/versions/1")
        for verb in ("generate", "generate_stream")
    ]


def _least_busy_or_sticky(llm: snapshots.LlmRoute, *, is_alias: bool) -> Json:
    added = [IS_ALIAS] if is_alias else []
    names = (clusters.llm_cluster(llm.name), clusters.sticky_cluster(llm.name))
    least_busy, sticky = (
        matchers.action(_route(llm, cluster) | {"request_headers_to_add": added})
        for cluster in names
    )
    return matchers.if_present(SESSION_HEADER, sticky, least_busy)


def _route(llm: snapshots.LlmRoute, cluster: str) -> Json:
    metadata: Json = {"llm": llm.name}
    if llm.is_held:
        metadata["wait_ms"] = int((llm.wait_s_max + WAIT_SLACK_S) * 1000)
    return {
        "@type": matchers.ROUTE,
        "match": {"prefix": "/"},
        "metadata": {"filter_metadata": {lua_filter.FILTER: metadata}},
        "route": {
            "cluster": cluster,
            # No limit: a model may think for an hour between two tokens.
            "timeout": "0s",
            "hash_policy": [{"header": {"header_name": SESSION_HEADER}}],
            "regex_rewrite": openai_errors.REWRITE,
            "retry_policy": RETRIES,
        },
        # OpenAI's clients always send a key. Engines need none, and it may be valid elsewhere.
        "request_headers_to_remove": list(api_keys.KEY_HEADERS),
        "typed_per_filter_config": {lua_filter.FILTER: lua_filter.no_task()},
    }
