"""The paths on which Envoy's own errors have Anthropic's form. Pure."""

from __future__ import annotations

from meshserve.gateway.envoy import Json, matchers
from meshserve.protocol import paths


def is_anthropic_path() -> Json:
    """Return Envoy's access-log filter for these paths; `llm_errors.is_anthropic` is the same."""
    pattern = rf"({paths.OPENAI_PREFIX})?{paths.ANTHROPIC_MESSAGES}([/?].*)?"
    match: Json = {"safe_regex": {"regex": pattern}}
    return matchers.has_header(":path", match)
