"""The sidecar's pages, called as an ASGI app."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Any

import httpx
import pytest

from meshserve.gateway.sidecar import sidecar_http
from meshserve.protocol import llm_errors


async def metrics() -> str:
    return "up 1\n"


def client(*, is_ready: bool = True) -> Any:
    app: Any = sidecar_http.SidecarHttp(lambda: is_ready, metrics, lambda: 1000)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node")


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/live/", "/healthz"])
async def test_liveness_does_not_depend_on_readiness(path: str) -> None:
    for is_ready in (True, False):
        answer = await client(is_ready=is_ready).get(path)
        assert (answer.status_code, answer.json()) == (200, {"live": True})


@pytest.mark.parametrize("path", ["/v2/health/ready", "/readyz"])
async def test_readiness_is_a_page_with_a_status(path: str) -> None:
    ready, unready = await client().get(path), await client(is_ready=False).get(path)
    assert (ready.status_code, ready.json()) == (200, {"ready": True})
    assert (unready.status_code, unready.json()) == (503, {"ready": False})


async def test_the_root_page_is_the_servers_metadata() -> None:
    facts = (await client().get("/v2")).json()
    assert (await client().get("/v2/")).json() == facts
    assert facts["name"] == "meshserve"
    assert "binary_tensor_data" in facts["extensions"]


async def test_the_root_is_alive_for_kserves_client() -> None:
    assert (await client().get("/")).json() == {"status": "alive"}


async def test_metrics_are_text() -> None:
    answer = await client().get("/metrics")
    assert (answer.text, answer.headers["content-type"]) == (
        "up 1\n",
        "text/plain; version=0.0.4; charset=utf-8",
    )


async def test_unknown_pages_and_methods_are_errors() -> None:
    assert (await client().get("/v2/other")).status_code == 404
    answer = await client().post("/v2", content=b"{}")
    assert (answer.status_code, answer.json()) == (405, {"error": "POST is not what /v2 is for"})


async def refused(turn: bytes) -> Any:
    """Return the body of the answer to a request that the script refuses as too large."""
    sent: list[MutableMapping[str, Any]] = []
    chunks = [{"body": b"x", "more_body": True}] * 3 + [{"body": b"x"}]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", **chunks.pop(0)}

    async def send(message: MutableMapping[str, Any]) -> None:
        assert not chunks
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v2/models/iris/infer",
        "headers": [(b"x-mesh-turn", turn)],
    }
    await sidecar_http.SidecarHttp(lambda: True, metrics, lambda: 1000)(scope, receive, send)
    assert sent[0]["status"] == 413
    return json.loads(sent[1]["body"])


async def test_a_refused_body_is_read_to_its_end_first() -> None:
    words = "the request is larger than the limit of 1000 bytes (gateway.request_bytes_max)"
    assert await refused(b"too-large") == {"error": words}
    assert await refused(b"too-large-for-llm") == llm_errors.openai(words, 413)


async def test_other_protocols_are_ignored() -> None:
    app: Any = sidecar_http.SidecarHttp(lambda: True, metrics, lambda: 1000)
    await app({"type": "lifespan"}, None, None)
