"""Gives an engine's errors the form that the clients of each API read.

Web frameworks answer a path that an engine lacks, a wrong method and a broken body with
`{"detail": "…"}`, of which OpenAI's clients show nothing; and vLLM answers some errors of
Anthropic's API in OpenAI's form. This wraps the engine's app instead of being installed in it:
an engine's web framework may have built its handlers before anybody can add one.
"""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any

import orjson

from meshserve.core.interfaces import llm_engine
from meshserve.protocol import llm_errors

LENGTH = b"content-length"
OWN_HEADERS = frozenset({LENGTH, b"content-type", b"transfer-encoding"})


class ShapedErrors:
    """An ASGI app that passes on another one's answers, with errors in the form of their path."""

    def __init__(self, app: llm_engine.Asgi, llm: str) -> None:
        self._app = app
        self._llm = llm

    async def __call__(
        self, scope: llm_engine.Scope, receive: llm_engine.Receive, send: llm_engine.Send
    ) -> None:
        """Answer one request (ASGI)."""
        await self._app(scope, receive, ShapedAnswer(scope, self._llm, send).send)


class ShapedAnswer:
    """One answer on its way to the client. Only an answer with an error status is changed."""

    def __init__(self, scope: llm_engine.Scope, llm: str, send: llm_engine.Send) -> None:
        self._scope = scope
        self._llm = llm
        self._send = send
        self._start: Mapping[str, Any] | None = None
        self._body = b""

    async def send(self, message: llm_engine.Scope) -> None:
        """Take the next message of the app's answer (ASGI)."""
        if message["type"] == "http.response.start" and message["status"] >= http.HTTPStatus(400):
            self._start = message
        elif self._start is None or message["type"] != "http.response.body":
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_error(self._start)

    async def _send_error(self, start: Mapping[str, Any]) -> None:
        body, headers = self._body, list(start.get("headers", ()))
        # The answer to HEAD has no body to change.
        document = self._document(start["status"]) if body else None
        if document is not None:
            body = orjson.dumps(document)
            # It is another body, which has a length and a type of its own.
            headers = [pair for pair in headers if pair[0].lower() not in OWN_HEADERS]
            headers += [(b"content-type", b"application/json"), (LENGTH, b"%d" % len(body))]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _document(self, status: int) -> object:
        """Return the body that the client should get, None if the engine's is right."""
        path = self._scope["path"]
        try:
            given = orjson.loads(self._body)
        except orjson.JSONDecodeError:
            # Starlette itself answers with bare text.
            given = {"detail": self._body.decode("utf-8", "replace")}
        if isinstance(given, dict) and "detail" in given:
            detail = given["detail"]
            # An engine may give a whole body of its own as the detail.
            whole = detail if isinstance(detail, dict) else self._of_framework(detail, status)
            return _for_anthropic(whole, status) if llm_errors.is_anthropic(path) else whole
        return _for_anthropic(given, status) if llm_errors.is_anthropic(path) else None

    def _of_framework(self, detail: object, status: int) -> dict[str, Any]:
        path = self._scope["path"]
        message = detail if isinstance(detail, str) else orjson.dumps(detail).decode()
        if status == http.HTTPStatus.NOT_FOUND and message == http.HTTPStatus.NOT_FOUND.phrase:
            message = (
                f"The model `{self._llm}` does not serve {path}: its kind of model has other paths."
            )
        elif status == http.HTTPStatus.METHOD_NOT_ALLOWED:
            message = f"{path} is not served with {self._scope['method']}."
        return llm_errors.of_path(path, message, status)


def _for_anthropic(given: object, status: int) -> object:
    """Return an error in Anthropic's form, with one of the types that its clients know."""
    document = given if isinstance(given, dict) else {}
    error = document.get("error")
    kind = error.get("type") if isinstance(error, dict) else None
    if document.get("type") == "error" and kind in llm_errors.ANTHROPIC_KINDS:
        return given
    message = error.get("message") if isinstance(error, dict) else error
    return llm_errors.anthropic(str(message or given), status)
