from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, NoReturn

import httpx
import pytest

from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2 as pb
from tests.control import conftest

GRPC = {"content-type": "application/grpc"}


async def test_health_is_ok(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).text == "ok\n"


async def test_metrics_are_prometheus_text(http: httpx.AsyncClient) -> None:
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "meshserve_models_registered 2.0" in answer.text


async def test_an_unknown_path_is_404(http: httpx.AsyncClient) -> None:
    answer = await http.get("/nothing")
    assert (answer.status_code, "error" in answer.json()) == (404, True)


async def test_a_grpc_answer_is_a_bare_message(http: httpx.AsyncClient) -> None:
    answer = await http.post(paths.REPOSITORY_INDEX, headers=GRPC)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/grpc")
    assert [
        entry.name for entry in pb.RepositoryIndexResponse.FromString(answer.content).models
    ] == [
        "big",
        "conf",
    ]


async def test_a_grpc_error_is_in_the_headers(http: httpx.AsyncClient) -> None:
    body = pb.RepositoryModelLoadRequest(model_name="none").SerializeToString()
    answer = await http.post(paths.REPOSITORY_MODEL_LOAD, headers=GRPC, content=body)
    assert (answer.status_code, answer.headers["x-mesh-grpc-status"], answer.content) == (
        200,
        "5",
        b"",
    )
    assert "none" in answer.headers["x-mesh-grpc-message"]


async def test_a_bug_is_an_answer_and_a_line_in_the_log(
    http: httpx.AsyncClient,
    stage: conftest.Stage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(stage.cluster, "copies", None)
    rest = await http.get("/mesh/v1/models/conf")
    body = pb.RepositoryModelLoadRequest(model_name="conf").SerializeToString()
    monkeypatch.setattr(stage.cluster, "ensure_loaded", None)
    grpc = await http.post(paths.REPOSITORY_MODEL_LOAD, headers=GRPC, content=body)
    assert (rest.status_code, rest.json()) == (500, {"error": "the controller failed: TypeError"})
    assert grpc.headers["x-mesh-grpc-status"] == "2"
    assert "/mesh/v1/models/conf failed" in caplog.text


async def test_other_protocols_are_ignored(stage: conftest.Stage) -> None:
    async def say_nothing(message: MutableMapping[str, Any] | None = None) -> NoReturn:
        raise AssertionError(message)

    await stage.plane.app({"type": "lifespan"}, say_nothing, say_nothing)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("HEAD", "/mesh/v1/status"),
        ("POST", "/mesh/v1/status"),
        ("GET", "/mesh/v1/apply"),
        ("GET", "/mesh/v1/models/conf/load"),
        ("POST", "/mesh/v1/models/conf/explode"),
    ],
)
async def test_another_method_of_a_known_path_is_404(
    http: httpx.AsyncClient, method: str, path: str
) -> None:
    assert (await http.request(method, path)).status_code == 404


@pytest.mark.parametrize("path", ["/mesh/v1/status/", "/mesh/v1/models/", "/mesh/v1/models/conf/"])
async def test_a_slash_at_the_end_changes_nothing(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).json() == (await http.get(path.rstrip("/"))).json()
