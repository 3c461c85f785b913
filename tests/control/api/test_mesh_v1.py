from __future__ import annotations

from typing import Any

import httpx
import pytest

from meshserve.core.values import containment, model
from tests.control import conftest

CONF = "/mesh/v1/models/conf"


async def test_the_status_has_all_documented_fields(http: httpx.AsyncClient) -> None:
    status = (await http.get("/mesh/v1/status")).json()
    assert set(status) >= {
        "version",
        "mesh_id",
        "state",
        "endpoint",
        "pools",
        "gateways",
        "models",
        "controller",
    }
    assert (status["state"], status["endpoint"]) == ("ready", "127.0.0.1:8080")
    assert [(pool["name"], pool["device"], len(pool["workers"])) for pool in status["pools"]] == [
        ("default", "cpu", 2),
        ("gpu", "cpu", 1),
    ]
    assert set(status["pools"][0]["workers"][0]) >= {
        *(
            "id",
            "node",
            "pid",
            "state",
            "restarts",
            "resident",
            "loading",
            "booked_bytes",
            "budget_bytes",
            "private_bytes",
        ),
        *(
            "requests",
            "failures",
            "hits",
            "misses",
            "loads",
            "load_failures",
            "evictions",
            "in_flight",
        ),
    }
    assert set(status["gateways"][0]) >= {"node", "pid", "envoy_pid", "state", "listen", "restarts"}
    assert set(status["models"]) == {"registered", "resident", "loading", "failed"}
    assert set(status["controller"]) == {"pid", "restarts"}


async def test_a_model_has_all_documented_fields(http: httpx.AsyncClient) -> None:
    shown = (await http.get(CONF)).json()
    assert shown == {
        "name": "conf",
        "version": "1",
        "versions": ["1"],
        "newest": "1",
        "state": "absent",
        "reason": "",
        "runtime": "",
        "uri": "/models/conf",
        "pool": "default",
        "pinned": False,
        "origin": "config",
        "worker": "",
        "footprint_bytes": {"host": 0, "gpu": 0},
        "requests": 0,
        "joining": {"state": "", "reason": ""},
        "hung_runs": 0,
        "aliases": ["al"],
        "aliases_dangling": [],
        "replaced": [],
        "inputs": [],
        "outputs": [],
        "footprint_from": "",
        "last_load": None,
        "last_departure": None,
        "load_failure": None,
        "last_error": None,
        "failed_requests": {},
        "slow": [],
        "pinned_by": "",
    }


async def test_a_model_is_put_changed_and_deleted(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    put = await http.put("/mesh/v1/models/new", json={"uri": "/models/new", "max_batch_size": 4})
    assert (put.status_code, put.json()["origin"], stage.knowing("new")) == (
        200,
        "api",
        ["default-0", "default-1"],
    )
    await http.put("/mesh/v1/models/new", json={"uri": "/models/other"})
    assert (await http.get("/mesh/v1/models/new")).json()["uri"] == "/models/other"
    assert (await http.delete("/mesh/v1/models/new")).json()["uri"] == "/models/other"
    assert (await http.get("/mesh/v1/models/new")).status_code == 404
    assert stage.knowing("new") == []


async def test_a_versions_name_is_in_the_query_or_in_the_body(http: httpx.AsyncClient) -> None:
    await http.put("/mesh/v1/models/new", params={"version": "3"}, json={"uri": "/models/new"})
    shown = await http.put("/mesh/v1/models/new", json={"uri": "/models/new", "version": "4"})
    assert (shown.json()["version"], shown.json()["versions"]) == ("4", ["3", "4"])
    assert (await http.delete("/mesh/v1/models/new", params={"version": "4"})).json()[
        "version"
    ] == "4"
    assert (await http.get("/mesh/v1/models/new")).json()["versions"] == ["3"]


async def test_a_models_load_timeout_is_its_pools(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    await http.put("/mesh/v1/models/new", json={"uri": "/models/new"})
    assert stage.store.models[model.ModelId("new")].spec.load_timeout_s == 120.0


async def test_a_name_is_quoted_in_the_path(http: httpx.AsyncClient) -> None:
    await http.put("/mesh/v1/models/r%C3%A4ksm%C3%B6rg%C3%A5s%20%3F", json={"uri": "/models/new"})
    assert (await http.get("/mesh/v1/models", params={"prefix": "räk"})).json()["models"][0][
        "name"
    ] == "räksmörgås ?"


async def test_aliases_in_a_body_replace_those_of_the_version(http: httpx.AsyncClient) -> None:
    put = await http.put(
        "/mesh/v1/models/new", json={"uri": "/models/new", "aliases": ["one", "two"]}
    )
    assert put.json()["aliases"] == ["one", "two"]
    put = await http.put(
        "/mesh/v1/models/new", json={"uri": "/models/new", "aliases": ["two", "three"]}
    )
    assert put.json()["aliases"] == ["three", "two"]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({}, 400, "uri: is needed"),
        ({"uri": "/m", "runtme": "onnx"}, 400, "did you mean 'runtime'"),
        ({"uri": "/m", "name": "other"}, 400, "another model than the path"),
        ({"uri": "/m", "pool": "tpu"}, 400, "no pool 'tpu'"),
        ({"uri": "relative"}, 400, "absolute"),
        ([1], 400, "JSON object"),
    ],
)
async def test_a_bad_body_is_refused_with_the_reason(
    http: httpx.AsyncClient, body: dict[str, str] | list[int], status: int, word: str
) -> None:
    refused = await http.put("/mesh/v1/models/new", json=body)
    assert (refused.status_code, word in refused.json()["error"]) == (status, True), refused.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", CONF, 409),
        ("DELETE", CONF, 409),
        ("DELETE", "/mesh/v1/models/none", 404),
        ("POST", "/mesh/v1/models/none/load", 404),
        ("POST", "/mesh/v1/models/none/pin", 404),
        ("GET", "/mesh/v1/models/conf?version=9", 404),
        ("GET", "/mesh/v1/aliases/none", 404),
        ("DELETE", "/mesh/v1/aliases/none", 404),
        ("DELETE", "/mesh/v1/aliases/al", 409),
        ("POST", f"{CONF}/explode", 404),
        ("PATCH", CONF, 404),
        ("GET", "/mesh/v1/nothing", 404),
    ],
)
async def test_impossible_requests_have_their_status(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await http.request(method, path, json={"uri": "/other"})
    assert answer.status_code == status
    assert answer.json()["error"]


async def test_a_model_whose_file_is_missing_is_refused_and_changes_nothing(
    http: httpx.AsyncClient, stage: Any
) -> None:
    before = stage.store.models[model.ModelId("conf")]
    stage.missing.add("/nowhere")
    for name in ("conf", "new"):
        refused = await http.put(f"/mesh/v1/models/{name}", json={"uri": "/nowhere"})
        assert (refused.status_code, refused.json()["error"]) == (
            400,
            "there is nothing at /nowhere",
        )
    assert stage.store.models[model.ModelId("conf")] == before
    assert model.ModelId("new") not in stage.store.models


async def test_a_model_whose_source_does_not_answer_is_registered_and_told(
    http: httpx.AsyncClient, stage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stage.unreachable.add("https://slow/model.onnx")
    shown = await http.put("/mesh/v1/models/new", json={"uri": "https://slow/model.onnx"})
    assert (shown.status_code, shown.json()["reason"]) == (200, "its server did not answer")
    assert "new:1 is registered unchecked: its server did not answer" in caplog.text


async def test_a_model_is_loaded_and_unloaded(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    loaded = (await http.post(f"{CONF}/load")).json()
    assert (loaded["state"], loaded["worker"], loaded["footprint_bytes"]["host"]) == (
        "ready",
        stage.mesh.view().home("conf"),
        1000,
    )
    assert (await http.post(f"{CONF}/unload")).json()["state"] == "absent"


async def test_a_failed_load_has_its_reason(http: httpx.AsyncClient, stage: conftest.Stage) -> None:
    stage.cluster.failing_loads["conf"] = "it is corrupt"
    refused = await http.post(f"{CONF}/load")
    assert (refused.status_code, refused.json()) == (424, {"error": "it is corrupt"})
    shown = (await http.get(CONF)).json()
    assert (shown["state"], shown["reason"]) == ("failed", "it is corrupt")
    put = await http.put("/mesh/v1/aliases/new", json={"model": "conf", "version": "1"})
    assert put.json()["failure"] == "it is corrupt"


async def test_a_model_in_quarantine_is_shown_and_released(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    refused = await http.post(f"{CONF}/release")
    assert (refused.status_code, "is not in quarantine" in refused.text) == (409, True)
    for end in ("release", "load"):
        trial = containment.TrialEnded("sha256:conf/1", model.ModelId("conf"), "SIGSEGV")
        worker = stage.cluster.workers["default-1"]
        worker.trials = (trial,)
        await stage.clock.advance(1.5)
        await stage.until(lambda: stage.mesh.view().quarantined())
        worker.trials = ()
        shown = (await http.get(CONF)).json()
        assert (shown["state"], shown["reason"]) == ("failed", "SIGSEGV")
        status = (await http.get("/mesh/v1/status")).json()
        assert status["quarantined"] == [{"model": "conf", "version": "1", "reason": "SIGSEGV"}]
        assert 'meshserve_model_quarantined{model="conf",version="1"} 1.0' in (
            (await http.get("/metrics")).text
        )
        assert (await http.post(f"{CONF}/{end}")).json()["reason"] == ""
        assert stage.mesh.view().quarantined() == []


async def test_a_model_is_pinned_and_unpinned(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    assert (await http.post(f"{CONF}/pin")).json()["pinned"]
    pinned = stage.cluster.workers[stage.home("conf")].pins
    assert pinned == {model.ModelId("conf")}
    refused = await http.post(f"{CONF}/unload")
    assert (refused.status_code, "unpin it first" in refused.text) == (409, True)
    assert not (await http.post(f"{CONF}/unpin")).json()["pinned"]
    assert pinned == set()


async def test_models_are_listed_in_pages(http: httpx.AsyncClient) -> None:
    for number in range(5):
        await http.put(f"/mesh/v1/models/m{number}", json={"uri": "/m"})
    seen, after = [], ""
    while after is not None:
        page = (
            await http.get("/mesh/v1/models", params={"prefix": "m", "limit": 2, "after": after})
        ).json()
        seen += [shown["name"] for shown in page["models"]]
        after = page["next"]
    assert seen == ["m0", "m1", "m2", "m3", "m4"]


async def test_models_are_listed_by_state(http: httpx.AsyncClient) -> None:
    await http.post(f"{CONF}/load")
    for state, names in (("ready", ["conf"]), ("absent", ["big"]), ("failed", [])):
        listed = (await http.get("/mesh/v1/models", params={"state": state})).json()["models"]
        assert [shown["name"] for shown in listed] == names


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=99999", "state=asleep"])
async def test_a_senseless_listing_is_refused(http: httpx.AsyncClient, query: str) -> None:
    assert (await http.get(f"/mesh/v1/models?{query}")).status_code == 400


async def test_an_alias_is_set_shown_and_cleared(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    put = await http.put("/mesh/v1/aliases/new", json={"model": "conf", "version": "1"})
    assert (put.json()["model"], put.json()["version"], put.json()["origin"]) == (
        "conf",
        "1",
        "api",
    )
    assert (await http.get("/mesh/v1/aliases/new")).json() == put.json()
    assert [shown["alias"] for shown in (await http.get("/mesh/v1/aliases")).json()["aliases"]] == [
        "al",
        "new",
    ]
    assert stage.knowing("new") == ["default-0", "default-1"]
    assert (await http.delete("/mesh/v1/aliases/new")).status_code == 200
    assert stage.knowing("new") == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"model": 3}, 400),
        ({"model": "conf", "to": "x"}, 400),
        ({"model": "none"}, 404),
        ({"model": "conf", "version": "9"}, 404),
    ],
)
async def test_a_bad_alias_is_refused(
    http: httpx.AsyncClient, body: dict[str, Any], status: int
) -> None:
    assert (await http.put("/mesh/v1/aliases/new", json=body)).status_code == status


async def test_a_configuration_is_applied_by_its_differences(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    answer = await http.post(
        "/mesh/v1/apply", json={"pools": {"default": {"workers": 2}, "gpu": {"workers": 1}}}
    )
    assert answer.json() == {
        "changes": ["alias al cleared", "model conf:1 withdrawn", "model big:1 withdrawn"]
    }
    assert stage.names() == []


async def test_a_wrong_configuration_changes_nothing(
    http: httpx.AsyncClient, stage: conftest.Stage
) -> None:
    refused = await http.post("/mesh/v1/apply", json={"models": [{"name": "a"}], "poolz": {}})
    assert (refused.status_code, "poolz" in refused.text, stage.names()) == (
        400,
        True,
        ["big", "conf"],
    )


async def test_a_pin_that_can_not_be_held_is_refused(
    stage: conftest.Stage, http: httpx.AsyncClient
) -> None:
    stage.cluster.failing_loads["conf"] = "it is too big"
    refused = await http.post(f"{CONF}/pin")
    assert refused.status_code == 424
    assert "it is too big" in refused.json()["error"]
    assert (await http.get(CONF)).json()["pinned"] is False


async def test_a_pinned_model_that_can_not_be_held_is_told(
    stage: conftest.Stage, http: httpx.AsyncClient
) -> None:
    stage.cluster.failing_loads["new"] = "it is too big"
    answer = await http.put("/mesh/v1/models/new", json={"uri": "/models/new", "pinned": True})
    assert answer.status_code == 424
    assert "it is too big" in answer.json()["error"]
    shown = (await http.get("/mesh/v1/models/new")).json()
    assert (shown["pinned"], shown["pinned_by"]) == (True, "the management API")
