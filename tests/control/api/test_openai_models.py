from __future__ import annotations

import pytest

from tests.control import llms


@pytest.fixture
async def client(fresh):
    await fresh.start(llms.CONFIG)
    async with fresh.client() as made:
        yield made


async def found(client, path):
    answer = await client.get(path)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("prefix", ["", "/openai"])
async def test_llms_and_adapters_are_listed_whether_they_run_or_not(client, prefix):
    status, listed = await found(client, f"{prefix}/v1/models")
    assert (status, listed["object"]) == (200, "list")
    assert [(each["id"], each["parent"]) for each in listed["data"]] == [
        ("always", None),
        ("always-sql", "always"),
        ("rare", None),
    ]
    assert {
        (each["object"], each["owned_by"], type(each["created"])) for each in listed["data"]
    } == {("model", "meshserve", int)}


@pytest.mark.parametrize("name", ["always", "always-sql", "org/always", "org%2Falways"])
async def test_one_is_found_by_any_of_its_names(client, name):
    status, one = await found(client, f"/openai/v1/models/{name}")
    assert (status, one["id"], one["owned_by"]) == (200, name.replace("%2F", "/"), "meshserve")


async def test_one_that_is_not_there_is_openai_s_404(client):
    status, said = await found(client, "/v1/models/nothing")
    assert (status, said["error"]["code"], said["error"]["param"]) == (
        404,
        "model_not_found",
        "model",
    )
    assert "`nothing`" in said["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/models"), ("GET", "/v1/modelsx"), ("DELETE", "/openai/v1/models/always")],
)
async def test_there_is_nothing_else(client, method, path):
    assert (await client.request(method, path)).status_code == 404
