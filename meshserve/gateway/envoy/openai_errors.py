"""The form of Envoy's own errors on OpenAI's paths, and the filter that finds these paths. Pure.

Source of the form: https://platform.openai.com/docs/guides/error-codes, as vLLM sends it.
"""

from __future__ import annotations

import http

from meshserve.gateway.envoy import Json, lua_filter
from meshserve.protocol import paths

RETRY_AFTER_S = 1
REWRITE: Json = {
    "pattern": {"regex": f"^{paths.PREFIXED_OPENAI}"},
    "substitution": paths.OPENAI,
}
# A route that rewrites the path adds this header, because the form of errors depends on the path.
MARK: Json = {
    "header": {"key": lua_filter.TURN_HEADER, "value": lua_filter.OPENAI},
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
    """Return the body of an error answer with this HTTP status."""
    is_ours = status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "server_error" if is_ours else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": CODES.get(status)}}


def is_openai_path() -> Json:
    """Return Envoy's access-log filter for requests whose errors have OpenAI's form.

    Below `/v1/models/` errors keep V1's form, unless the route has marked the model as an LLM.
    """
    is_marked: Json = {
        "header_filter": {
            "header": {"name": lua_filter.TURN_HEADER, "string_match": {"exact": lua_filter.OPENAI}}
        }
    }
    # One expression a path, because Envoy limits the size of a regular expression's program.
    whole = [_path(regex=rf"{path}(\?.*)?") for path in (paths.OPENAI_MODELS, *paths.ENGINE_PATHS)]
    below_api = {
        "and_filter": {
            "filters": [
                _path(prefix=paths.OPENAI),
                _path(prefix=paths.OPENAI_MODELS, is_inverted=True),
            ]
        }
    }
    prefixed = _path(prefix=paths.PREFIXED_OPENAI)
    return {"or_filter": {"filters": [is_marked, *whole, prefixed, below_api]}}


def _path(prefix: str = "", regex: str = "", *, is_inverted: bool = False) -> Json:
    match: Json = {"safe_regex": {"regex": regex}} if regex else {"prefix": prefix}
    return {
        "header_filter": {
            "header": {"name": ":path", "string_match": match, "invert_match": is_inverted}
        }
    }
