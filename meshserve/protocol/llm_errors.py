"""Errors as the clients of LLMs read them: OpenAI's form, and Anthropic's on `/v1/messages`.

Sources: https://platform.openai.com/docs/guides/error-codes, as vLLM sends it, and
https://docs.anthropic.com/en/api/errors.
"""

from __future__ import annotations

import http
from typing import Any

from meshserve.protocol import paths

OPENAI_CODES = {
    401: "invalid_api_key",
    403: "insufficient_permissions",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "request_too_large",
    415: "unsupported_encoding",
    503: "service_unavailable",
    504: "timeout",
}
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
ANTHROPIC_KINDS = frozenset({*ANTHROPIC_TYPES.values(), "api_error"})
"""All types of errors that Anthropic's API has."""


def is_anthropic(path: str) -> bool:
    """Return whether a path is of Anthropic's API, with or without `/openai` before it."""
    bare = path.removeprefix(paths.OPENAI_PREFIX).partition("?")[0].rstrip("/")
    return bare == paths.ANTHROPIC_MESSAGES or bare.startswith(f"{paths.ANTHROPIC_MESSAGES}/")


def openai(message: str, status: int = 500) -> dict[str, Any]:
    """Return the body of OpenAI's error answer with this HTTP status."""
    is_ours = status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "server_error" if is_ours else "invalid_request_error"
    code = OPENAI_CODES.get(status)
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic(message: str, status: int = 500) -> dict[str, Any]:
    """Return the body of Anthropic's error answer with this HTTP status."""
    is_ours = status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
    other = "api_error" if is_ours else "invalid_request_error"
    kind = ANTHROPIC_TYPES.get(status, other)
    return {"type": "error", "error": {"type": kind, "message": message}}


def of_path(path: str, message: str, status: int) -> dict[str, Any]:
    """Return the body of an error answer in the form of the path's API."""
    return anthropic(message, status) if is_anthropic(path) else openai(message, status)
