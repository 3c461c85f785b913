"""The paths on which Envoy's own errors have OpenAI's form. Pure."""

from __future__ import annotations

from meshserve.gateway.envoy import Json, lua_filter, matchers
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


def is_openai_path() -> Json:
    """Return Envoy's access-log filter for requests whose errors have OpenAI's form.

    Below `/v1/models/` errors keep V1's form, unless the route has marked the model as an LLM.
    """
    is_marked = matchers.has_header(lua_filter.TURN_HEADER, {"exact": lua_filter.OPENAI})
    # One expression a path, because Envoy limits the size of a regular expression's program.
    whole = [_path(regex=rf"{path}(\?.*)?") for path in (paths.OPENAI_MODELS, *paths.ENGINE_PATHS)]
    not_models = _path(prefix=paths.OPENAI_MODELS, is_inverted=True)
    below_api = {"and_filter": {"filters": [_path(prefix=paths.OPENAI), not_models]}}
    prefixed = _path(prefix=paths.PREFIXED_OPENAI)
    return {"or_filter": {"filters": [is_marked, *whole, prefixed, below_api]}}


def _path(prefix: str = "", regex: str = "", *, is_inverted: bool = False) -> Json:
    match: Json = {"safe_regex": {"regex": regex}} if regex else {"prefix": prefix}
    return matchers.has_header(":path", match, is_inverted=is_inverted)
