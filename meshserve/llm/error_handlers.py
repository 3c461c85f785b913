"""Gives the errors of an engine's web framework the form that clients of LLMs read.

Starlette answers a path that the app lacks, a wrong method and a broken body with
`{"detail": "…"}`, of which OpenAI's clients show nothing.
"""

from __future__ import annotations

import http
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from meshserve.protocol import llm_errors


def install(app: Starlette, llm: str) -> None:
    """Make an app that was not called yet answer so; `llm` is named to who asks in vain."""

    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        body = _body(request, error, llm)
        return JSONResponse(body, error.status_code, headers=dict(error.headers or {}))

    app.add_exception_handler(HTTPException, answer)


def _body(request: Request, error: HTTPException, llm: str) -> object:
    # An engine may give a whole body of its own.
    if isinstance(error.detail, Mapping):
        return error.detail
    path, status = request.url.path, error.status_code
    message = str(error.detail)
    if status == http.HTTPStatus.NOT_FOUND and message == http.HTTPStatus.NOT_FOUND.phrase:
        message = f"The model `{llm}` does not serve {path}: its kind of model has other paths."
    elif status == http.HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{path} is not served with {request.method}."
    return llm_errors.of_path(path, message, status)
