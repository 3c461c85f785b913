from __future__ import annotations

import time
from typing import Any

import httpx

from tests import support
from tests.control import conftest


async def read(http: httpx.AsyncClient, **query: Any) -> Any:
    answer = await http.get("/mesh/v1/events", params=query)
    answer.raise_for_status()
    return answer.json()


async def test_an_event_has_all_documented_fields(http: httpx.AsyncClient) -> None:
    page = await read(http, kind="ready", about="gateway")
    [event] = page["events"]
    assert set(event) == {
        *("number", "at_s", "kind", "reason", "model", "version", "process", "node", "by"),
        "took_s",
    }
    assert (event["kind"], event["process"], event["node"]) == ("ready", "gateway", "n1")
    assert set(page) == {"log", "known_since_s", "missed", "events", "next"}


async def test_times_are_unix_times(http: httpx.AsyncClient) -> None:
    begun_s = time.time() - support.WAIT_S
    page = await read(http)
    # Times are rounded, and the two clocks are not read at one moment.
    end_s = time.time() + 1.0
    assert all(begun_s < event["at_s"] < end_s for event in page["events"])
    assert begun_s < page["known_since_s"] < end_s
    assert (await read(http, since_s=time.time() + 3600.0))["events"] == []


async def test_a_reader_goes_on_where_it_was(http: httpx.AsyncClient) -> None:
    page = await read(http)
    assert page["next"] == max(event["number"] for event in page["events"])
    assert (await read(http, after=page["next"]))["events"] == []
    await http.put("/mesh/v1/models/new", json={"uri": "/models/new"})
    [event] = (await read(http, after=page["next"], kind="changed"))["events"]
    assert (event["model"], event["version"], event["reason"]) == ("new", "1", "model new:1 added")
    first = await read(http, after=0, limit=1)
    assert (first["next"], len(first["events"])) == (1, 1)


async def test_a_change_has_the_name_of_its_client(http: httpx.AsyncClient) -> None:
    await http.put(
        "/mesh/v1/models/new", json={"uri": "/models/new"}, headers={"x-mesh-client": "ops"}
    )
    [event] = (await read(http, about="new", kind="changed"))["events"]
    assert event["by"] == "ops"


async def test_a_wrong_query_is_refused_in_words(http: httpx.AsyncClient) -> None:
    unknown = await http.get("/mesh/v1/events", params={"kind": "birth"})
    assert unknown.status_code == 400
    assert "there is no kind 'birth'; there are: loaded" in unknown.json()["error"]
    no_number = await http.get("/mesh/v1/events", params={"since_s": "yesterday"})
    assert no_number.json() == {"error": "since_s must be a number, not 'yesterday'"}


async def test_another_controller_numbers_anew(stage: conftest.Stage) -> None:
    await stage.start(conftest.CONFIG)
    async with stage.client() as client:
        before = await read(client)
    await stage.plane.close()
    await stage.start(restarts=1)
    async with stage.client() as client:
        after = await read(client)
    assert before["log"] != after["log"]
