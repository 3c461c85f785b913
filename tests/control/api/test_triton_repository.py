"""The extension over REST; test_management_grpc.py has it over gRPC."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import orjson
import pytest

from meshserve import errors
from meshserve.control.api import triton_repository
from meshserve.core.interfaces import cluster_control
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


def served(stage: conftest.Stage, name: str) -> dict[str, tuple[str, int]]:
    return {
        id_.version: (declared.spec.uri, declared.spec.max_batch_size)
        for id_, declared in stage.store.models.items()
        if id_.name == name
    }


async def load(http: httpx.AsyncClient, name: str, **body: Any) -> httpx.Response:
    return await http.post(f"{BASE}/models/{name}/load", json=body)


@pytest.mark.parametrize("name", ["conf", "new", "repo", "al"])
async def test_a_configuration_changes_any_model_until_a_load_without_one(
    http: httpx.AsyncClient, stage: conftest.Stage, name: str
) -> None:
    await register_everywhere(http, stage)
    own = stage.plane.admin.model_name(name)
    before = served(stage, own)
    assert (await load(http, name, **loading({"max_batch_size": "7"}))).status_code == 200
    assert served(stage, own) == {version: (uri, 7) for version, (uri, _) in before.items()}
    assert (await http.get(f"/mesh/v1/models/{name}")).json()["replaced"] == list(before)
    assert (await load(http, name)).status_code == 200
    assert served(stage, own) == before
    assert (await http.get(f"/mesh/v1/models/{name}")).json()["replaced"] == []


async def register_everywhere(http: httpx.AsyncClient, stage: conftest.Stage) -> None:
    """Have a model of the API and one of a repository, beside those of the configuration."""
    await http.put("/mesh/v1/models/new", json={"uri": "/models/new"})
    await http.post("/mesh/v1/apply", json={**conftest.CONFIG, "repositories": [{"path": "/r"}]})
    stage.watch.put("/r", cluster_control.RepositoryScan((of_repository("1"), of_repository("3"))))
    await stage.until(lambda: stage.mesh.view().models.versions("repo"))


def of_repository(version: str) -> model.ModelSpec:
    origin = model.Origin(model.OriginKind.REPOSITORY, "/r")
    return model.ModelSpec(model.ModelId("repo", version), f"/r/repo/{version}", origin=origin)


async def test_a_repository_is_read_by_the_configuration_of_a_load(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    await register_everywhere(http, stage)
    stage.watch.declared = (of_repository("2"),)
    policy = {"version_policy": {"specific": {"versions": [2]}}}
    assert (await load(http, "repo", **loading(policy))).status_code == 200
    assert list(served(stage, "repo")) == ["2"]
    assert (await load(http, "repo")).status_code == 200
    assert stage.watch.looks == ["repo"]
    assert sorted(served(stage, "repo")) == ["1", "3"]


@pytest.mark.parametrize("name", ["conf", "new", "repo"])
async def test_files_take_the_place_of_any_model_until_a_load_without_any(
    http: httpx.AsyncClient, stage: conftest.Stage, name: str
) -> None:
    await register_everywhere(http, stage)
    before = served(stage, name)
    body = loading({"backend": "onnxruntime"}, **{"7/model.onnx": b"bytes"})
    assert (await load(http, name, **body)).status_code == 200
    ((version, (uri, _)),) = served(stage, name).items()
    assert (version, uri.startswith(stage.state_dir)) == ("7", True)
    assert (await load(http, name)).status_code == 200
    assert served(stage, name) == before


@pytest.mark.parametrize("name", ["conf", "new", "repo"])
async def test_an_override_that_can_t_be_loaded_changes_nothing(
    http: httpx.AsyncClient, stage: conftest.Stage, name: str
) -> None:
    await register_everywhere(http, stage)
    before = served(stage, name)
    stage.cluster.failing_loads[name] = "it is corrupt"
    body = loading({}, **{"1/model.onnx": b"junk", "2/model.onnx": b"good"})
    refused = await load(http, name, **body)
    assert (refused.status_code, "it is corrupt" in refused.text) == (424, True)
    assert served(stage, name) == before


async def test_a_failed_override_leaves_the_one_before_it(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    assert (await load(http, "conf", **loading({"max_batch_size": 7}))).status_code == 200
    stage.cluster.failing_loads["conf"] = "it is corrupt"
    assert (await load(http, "conf", **loading({"max_batch_size": 9}))).status_code == 424
    assert served(stage, "conf") == {"1": ("/models/conf", 7)}
    del stage.cluster.failing_loads["conf"]
    assert (await load(http, "conf")).status_code == 200
    assert served(stage, "conf") == {"1": ("/models/conf", 256)}


async def test_every_version_of_uploaded_files_is_loaded(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    body = loading({}, **{"1/model.onnx": b"one", "2/model.onnx": b"two"})
    assert (await load(http, "sent", **body)).status_code == 200
    copies = stage.cluster.workers[stage.home("sent")].copies
    assert {copies[model.ModelId("sent", version)].state for version in ("1", "2")} == {"ready"}


async def test_a_broken_description_fails_a_load_and_leaves_what_is_served(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    await register_everywhere(http, stage)
    specs = (of_repository("1"), of_repository("3"))
    broken = {"repo": "repo: line 1: unexpected token"}
    stage.watch.put("/r", cluster_control.RepositoryScan(specs, ("repo: line 1",), broken))
    await stage.until(lambda: stage.plane.status()["repositories"][0]["problems"])
    refused = await load(http, "repo")
    assert (refused.status_code, "line 1" in refused.text) == (424, True)
    assert sorted(served(stage, "repo")) == ["1", "3"]


@pytest.mark.parametrize(
    ("name", "parameters", "status"),
    [
        ("conf", {"config": '"parameters": {"config": {"max_batch_size": "16"}}'}, 400),
        ("conf", {"config": {"max_batch_size": 16}}, 400),
        ("conf", {"file:1/model.onnx": "AAAA"}, 400),
        ("none", {}, 404),
        ("none", {"config": "{}"}, 404),
        ("big", {}, 424),
    ],
)
async def test_what_a_client_tests_for_is_in_the_words(
    http: httpx.AsyncClient,
    stage: conftest.Stage,
    name: str,
    parameters: dict[str, Any],
    status: int,
) -> None:
    stage.cluster.failing_loads["big"] = "it is corrupt"
    refused = await load(http, name, parameters=parameters)
    assert refused.status_code == status
    assert refused.json()["error"].startswith(f"failed to load '{name}', ")
    if status == 404 or "file:1/model.onnx" in parameters:
        assert "failed to poll from model repository" in refused.text


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
        ({"config": "{}", "file:v1/m": "AAAA", "file:": "AAAA"}, 400),
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


async def test_the_index_has_what_a_repository_can_not_serve(fresh: conftest.Stage) -> None:
    await fresh.start({**conftest.CONFIG, "repositories": [{"path": "/r"}]})
    problems = ("team: ensembles are not served", "conf/2: it is broken", "the disk is gone: no")
    fresh.watch.put("/r", cluster_control.RepositoryScan((), problems))
    await fresh.until(lambda: bool(fresh.plane.admin.unserved()))
    async with fresh.client() as client:
        listed = await index(client)
        assert listed["team"] == ("UNAVAILABLE", "ensembles are not served")
        assert listed.keys() == {"big", "conf", "team"}
        assert "team" not in await index(client, ready=True)
