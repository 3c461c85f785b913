"""An ASGI app behind a secret, served by uvicorn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette import responses

from meshserve.protocol import asgi_server, guarded_app, sockets

SECRET = "s" * 43
SENT = {"X-Mesh-Secret": SECRET}


async def show_headers(scope: Any, receive: Any, send: Any) -> None:
    names = [name.decode() for name, _ in scope["headers"]]
    await responses.JSONResponse(names)(scope, receive, send)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    app = guarded_app.guard(show_headers, SECRET)
    served = await asgi_server.serve(app, [sockets.tcp_socket("127.0.0.1")])
    url = f"http://127.0.0.1:{served.port}"
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client
    await served.stop()


async def test_the_app_gets_requests_with_the_secret_but_not_the_secret(
    http: httpx.AsyncClient,
) -> None:
    answer = await http.post("/any", headers={**SENT, "x-a": "b"}, content=b"12")
    assert answer.status_code == 200
    assert "x-a" in answer.json()
    assert "x-mesh-secret" not in answer.json()


@pytest.mark.parametrize(
    "headers", [{}, {"x-mesh-secret": SECRET[:-1]}, {"authorization": f"Bearer {SECRET}"}]
)
@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/mesh/v1/status", "/v1/models"])
async def test_all_else_is_refused_and_the_connection_closed(
    http: httpx.AsyncClient, path: str, headers: dict[str, str]
) -> None:
    answer = await http.get(path, headers=headers)
    assert (answer.status_code, answer.headers["connection"]) == (401, "close")
    assert "gateway" in answer.json()["error"]


def test_without_a_secret_the_app_is_served_as_it_is() -> None:
    assert guarded_app.guard(show_headers, "") is show_headers
