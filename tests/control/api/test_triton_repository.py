"""The extension over REST; test_management_grpc.py has it over gRPC."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import orjson
import pytest

from meshserve import errors
from meshserve.control.api import triton_repository
from meshserve.core.values import model, model_stats
from tests.control import conftest

BASE = "/v2/repository"


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("ready", "READY"),
        ("parked", "READY"),
        ("absent", "READY"),
        ("evicting", "READY"),
        ("fetching", "LOADING"),
        ("loading", "LOADING"),
    ],
)
def test_states_in_tritons_words(state: str, word: str) -> None:
    assert triton_repository.triton_state(state, "")[0] == word


def test_a_failed_copy_has_its_reason() -> None:
    assert triton_repository.triton_state("failed", "it is corrupt") == (
        "UNAVAILABLE",
        "it is corrupt",
    )


def test_text_may_be_bytes_but_bytes_must_not_be_text() -> None:
    assert triton_repository.as_text(b"{}") == "{}" == triton_repository.as_text("{}")
    assert triton_repository.as_bytes(b"x") == b"x"
    with pytest.raises(errors.InvalidRequest):
        triton_repository.as_bytes("x")
    with pytest.raises(errors.InvalidRequest):
        triton_repository.as_text(b"\xff")


async def index(http: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    return {
        entry["name"]: (entry["state"], entry["reason"])
        for entry in (await http.post(f"{BASE}/index", json=body)).json()
    }


async def test_the_index_has_every_version(http: httpx.AsyncClient, stage: conftest.Stage) -> None:
    stage.cluster.failing_loads["big"] = "it is corrupt"
    assert (await http.post(f"{BASE}/models/conf/load", json={})).status_code == 200
    assert (await http.post(f"{BASE}/models/big/load")).status_code == 424
    assert await index(http) == {"conf": ("READY", ""), "big": ("UNAVAILABLE", "it is corrupt")}
    assert await index(http, ready=True) == {"conf": ("READY", "")}


async def test_a_model_outside_memory_is_ready(http: httpx.AsyncClient) -> None:
    state, reason = (await index(http))["conf"]
    assert (state, "not in memory" in reason) == ("READY", True)


async def test_a_repository_may_be_named_in_the_path(http: httpx.AsyncClient) -> None:
    assert (await http.post(f"{BASE}/any/index")).status_code == 200
    assert (await http.post(f"{BASE}/any/models/conf/load")).status_code == 200


async def test_an_unload_evicts_every_version(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    await http.post(f"{BASE}/models/conf/load")
    assert (
        await http.post(
            f"{BASE}/models/conf/unload", json={"parameters": {"unload_dependents": False}}
        )
    ).status_code == 200
    assert not any(worker.copies for worker in stage.cluster.workers.values())
    listed = (await http.post(f"{BASE}/index")).json()
    states = {entry["name"]: (entry["state"], entry["reason"]) for entry in listed}
    assert states["conf"] == ("UNAVAILABLE", "unloaded")
    assert stage.store.models[model.ModelId("conf")].spec.unloaded


async def test_a_load_ends_an_unload(http: httpx.AsyncClient, stage: Any) -> None:
    for path in (f"{BASE}/models/conf/load", "/mesh/v1/models/conf/load"):
        assert (await http.post(f"{BASE}/models/conf/unload")).status_code == 200
        shown = (await http.get("/mesh/v1/models/conf")).json()
        assert shown["reason"] == "unloaded: load it first"
        assert (await http.post("/mesh/v1/models/conf/pin")).status_code == 409
        assert (await http.post(path)).status_code == 200
        assert not stage.store.models[model.ModelId("conf")].spec.unloaded


def loading(config: dict[str, Any], **files: Any) -> dict[str, Any]:
    given = {f"file:{name}": base64.b64encode(content).decode() for name, content in files.items()}
    return {"parameters": {"config": orjson.dumps(config).decode(), **given}}


async def test_a_model_may_come_with_the_request(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    body = loading({"backend": "onnxruntime", "max_batch_size": 4}, **{"3/model.onnx": b"bytes"})
    assert (await http.post(f"{BASE}/models/sent/load", json=body)).status_code == 200
    spec = stage.store.models[model.ModelId("sent", "3")].spec
    assert (spec.runtime, spec.max_batch_size, spec.trust) == ("onnx", 4, False)
    assert spec.uri.startswith(stage.state_dir)
    assert stage.cluster.workers[stage.home("sent")].copies[spec.id].state == "ready"


async def test_a_configuration_may_change_a_registered_model(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    await http.put(
        "/mesh/v1/models/new", json={"uri": "/models/new", "checksum": "sha256:" + "0" * 64}
    )
    assert (
        await http.post(f"{BASE}/models/new/load", json=loading({"max_batch_size": 7}))
    ).status_code == 200
    spec = stage.store.models[model.ModelId("new")].spec
    assert (spec.max_batch_size, spec.uri, spec.checksum) == (
        7,
        "/models/new",
        "sha256:" + "0" * 64,
    )


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"config": "{"}, 400),
        ({"colour": "blue"}, 400),
        ({"file:1/m": "AAAA"}, 400),
        ({"config": "{}", "file:1/m": "!"}, 400),
        ({"config": "{}", "file:../m": "AAAA"}, 400),
        ({"config": 3}, 400),
        ([], 400),
        ({"config": "{}", "file:1/m": "AAAA"}, 409),
    ],
)
async def test_a_senseless_load_is_refused(
    http: httpx.AsyncClient,
    stage: conftest.Stage,
    parameters: dict[str, Any] | list[Any],
    status: int,
) -> None:
    refused = await http.post(f"{BASE}/models/conf/load", json={"parameters": parameters})
    assert refused.status_code == status, refused.text
    assert stage.names() == ["big", "conf"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/index"), ("POST", "/models/conf"), ("POST", "/models/conf/explode")],
)
async def test_other_paths_and_methods_are_404(
    http: httpx.AsyncClient, method: str, path: str
) -> None:
    assert (await http.request(method, BASE + path)).status_code == 404


async def test_statistics_add_up_over_workers(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    for worker_id in ("default-0", "default-1"):
        counted = stage.cluster.workers[worker_id].stats[model.ModelId("conf")] = (
            model_stats.ModelStats()
        )
        counted.record_answer(2, 0.5, 1.0)
    stats = {
        entry["name"]: entry for entry in (await http.get("/v2/models/stats")).json()["model_stats"]
    }
    assert stats["conf"]["inference_count"] == 4
    assert stats["conf"]["inference_stats"]["success"] == {"count": 2, "ns": 10**9}
    assert stats["big"]["inference_count"] == 0
