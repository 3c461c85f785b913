"""OpenAI's part of the one port: which paths speak its language, and the form of Envoy's own errors there. Pure."""

from __future__ import annotations

import http

from meshserve.gateway.lua import shared

Json = dict[str, object]

API = "/v1/"
# Where clients may look for all of it too.
OTHER_API = "/openai/v1/"
MODELS = "/v1/models"
OTHER_MODELS = "/openai/v1/models"
# What engines serve beside OpenAI's own paths.
BARE = (
    "/tokenize",
    "/detokenize",
    "/score",
    "/rerank",
    "/pooling",
    "/classify",
    "/v2/rerank",
    "/v2/embed",
    "/invocations",
    "/inference/v1/generate",
)
RETRY_AFTER_S = 1
REWRITE: Json = {"pattern": {"regex": f"^{OTHER_API}"}, "substitution": API}
# What a route adds to requests whose path it may rewrite, so that the form of their errors is known all the same.
MARK: Json = {
    "header": {"key": shared.TURN_HEADER, "value": shared.OPENAI},
    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
}
CODES = {
    401: "invalid_api_key",
    403: "insufficient_permissions",
    404: "not_found",
    408: "timeout",
    413: "request_too_large",
    503: "service_unavailable",
    504: "timeout",
}


def error(message: str, status: int = 500) -> Json:
    """The body of an answer with that status."""
    kind = (
        "server_error"
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
        else "invalid_request_error"
    )
    return {"error": {"message": message, "type": kind, "param": None, "code": CODES.get(status)}}


def is_spoken() -> Json:
    """Envoy's filter for requests whose errors have OpenAI's form.

    Below `/v1/models/` they keep that of V1, whose paths these are too, unless the route has told that the model is an LLM.
    """
    is_known: Json = {
        "header_filter": {
            "header": {"name": shared.TURN_HEADER, "string_match": {"exact": shared.OPENAI}}
        }
    }
    # One by one: Envoy takes no long expressions.
    whole = [_path(regex=rf"{path}(\?.*)?") for path in (MODELS, *BARE)]
    not_models = {
        "and_filter": {"filters": [_path(prefix=API), _path(prefix=MODELS, is_inverted=True)]}
    }
    return {"or_filter": {"filters": [is_known, *whole, _path(prefix=OTHER_API), not_models]}}


def _path(prefix: str = "", regex: str = "", *, is_inverted: bool = False) -> Json:
    match: Json = {"safe_regex": {"regex": regex}} if regex else {"prefix": prefix}
    return {
        "header_filter": {
            "header": {"name": ":path", "string_match": match, "invert_match": is_inverted}
        }
    }
