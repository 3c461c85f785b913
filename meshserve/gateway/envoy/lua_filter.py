"""Envoy's Lua filter: our scripts, and the words that scripts and routes share. Pure."""

from __future__ import annotations

import enum

from meshserve.gateway.envoy import Json, clusters
from meshserve.gateway.lua import scripts
from meshserve.protocol import compression, paths

FILTER = "envoy.filters.http.lua"
LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
LUA_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute"
LLM_SCRIPT = "llm"
# A gRPC message's frame is a flag and the message's length in four bytes.
FRAME_BYTES = 5

MODEL_HEADER = paths.MODEL_HEADER
HTTP_STATUS_HEADER = "x-mesh-http-status"
"""The HTTP status of the answer to a gRPC call, which Envoy's bridge replaces by 200."""

TURN_HEADER = "x-mesh-turn"
"""Why a request does not simply go by its path or its model: one of the words below."""

TOO_LARGE = "too-large"
TOO_LARGE_FOR_LLM = "too-large-for-llm"
LLM = "llm"
ANSWERED = "answered"
OPENAI = "openai"

CONSTANTS: dict[str, str | int] = {
    "MODEL_HEADER": MODEL_HEADER,
    "HTTP_STATUS_HEADER": HTTP_STATUS_HEADER,
    "TURN_HEADER": TURN_HEADER,
    "TOO_LARGE": TOO_LARGE,
    "TOO_LARGE_FOR_LLM": TOO_LARGE_FOR_LLM,
    "LLM": LLM,
    "ANSWERED": ANSWERED,
    "FRAME_BYTES": FRAME_BYTES,
    "CONTROLLER": clusters.CONTROLLER,
    "INFLATED_BYTES_MAX": compression.BYTES_MAX_HEADER,
    "HOLD": paths.HOLD,
    "REASON_HEADER": paths.REASON_HEADER,
    "OPENAI_PREFIX": paths.OPENAI_PREFIX,
    "ANTHROPIC_MESSAGES": paths.ANTHROPIC_MESSAGES,
    "V1_MODELS": paths.V1_MODELS,
    "V2_MODELS": paths.V2_MODELS,
}


class NameSource(enum.Enum):
    """Where the script looks for the model's name.

    MESSAGE is field 1 of a gRPC message, or its metadata; LLM is the body or query of OpenAI's API.
    FRAME is nowhere: the script only checks that a gRPC call has a message, compressed or not.
    """

    MESSAGE = "message"
    URL = "url"
    LLM = "llm"
    FRAME = "frame"
    NONE = "none"


def http_filter() -> Json:
    """Return the filter with both scripts. It is disabled on routes that give it no task."""
    sources = {
        "default_source_code": {"inline_string": scripts.source("small_models", CONSTANTS)},
        "source_codes": {LLM_SCRIPT: {"inline_string": scripts.source("llm", CONSTANTS)}},
    }
    return {"name": FILTER, "disabled": True, "typed_config": {"@type": LUA, **sources}}


def task(source: NameSource, request_bytes_max: int, *, has_held: bool = False) -> Json:
    """Return the filter's settings on a route; with `has_held` some pools have no worker."""
    script = {"name": LLM_SCRIPT} if source is NameSource.LLM else {}
    context: Json = {"name_source": source.value, "request_bytes_max": request_bytes_max}
    if has_held:
        context["has_held"] = True
    return {"@type": LUA_ROUTE, **script, "filter_context": context}


def no_task() -> Json:
    """Return the filter's settings on a route that a script has chosen: answers pass unchanged."""
    return {"@type": LUA_ROUTE, "name": LLM_SCRIPT}


def body_bytes_max(request_bytes_max: int) -> int:
    """Return the size of Envoy's body buffer: a message of that size with its gRPC frame."""
    return request_bytes_max + FRAME_BYTES
