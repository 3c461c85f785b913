from __future__ import annotations

import pytest

from meshserve.protocol import llm_errors


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (404, "invalid_request_error", "not_found"),
        (413, "invalid_request_error", "request_too_large"),
        (500, "server_error", None),
        (503, "server_error", "service_unavailable"),
    ],
)
def test_openais_errors_tell_client_from_server(status: int, kind: str, code: str | None) -> None:
    assert llm_errors.of_path("/v1/chat/completions", "x", status) == {
        "error": {"message": "x", "type": kind, "param": None, "code": code}
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/messages", "/openai/v1/messages?beta=true", "/v1/messages/count_tokens"]
)
def test_anthropics_errors_have_their_own_form(status: int, kind: str, path: str) -> None:
    assert llm_errors.of_path(path, "x", status) == {
        "type": "error",
        "error": {"type": kind, "message": "x"},
    }


@pytest.mark.parametrize("path", ["/v1/messagesx", "/v1/chat/completions", "/v2/v1/messages"])
def test_other_paths_are_not_anthropics(path: str) -> None:
    assert not llm_errors.is_anthropic(path)
