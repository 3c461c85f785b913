from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.control import conftest, llms


@pytest.fixture
async def client(fresh: conftest.Stage) -> AsyncIterator[httpx.AsyncClient]:
    await fresh.start(llms.CONFIG)
    async with fresh.client() as client:
        yield client


async def test_small_models_are_listed_for_v1s_clients_beside_openais(client: Any) -> None:
    body = {"uri": "/models/x"}
    for name in ("wine", "iris"):
        assert (await client.put(f"/mesh/v1/models/{name}", json=body)).status_code == 200
    for path in ("/v1/models", "/v1/models/"):
        _, listed = await get(client, path)
        assert (listed["object"], listed["models"]) == ("list", ["iris", "wine"])
        assert {entry["id"] for entry in listed["data"]} >= {"always", "org/always"}
    assert await get(client, "/v2/models") == (200, {"models": ["iris", "wine"]})
    _, prefixed = await get(client, "/openai/v1/models")
    assert set(prefixed) == {"object", "data"}


async def get(client: httpx.AsyncClient, path: str) -> tuple[int, dict[str, Any]]:
    answer = await client.get(path)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("prefix", ["", "/openai"])
async def test_every_name_of_every_llm_is_listed(client: Any, prefix: str) -> None:
    status, listed = await get(client, f"{prefix}/v1/models")
    assert (status, listed["object"]) == (200, "list")
    assert [(entry["id"], entry["parent"]) for entry in listed["data"]] == [
        ("always", None),
        ("org/always", None),
        ("always-sql", "always"),
        ("rare", None),
    ]
    assert {
        (entry["object"], entry["owned_by"], type(entry["created"])) for entry in listed["data"]
    } == {("model", "meshserve", int)}


@pytest.mark.parametrize("name", ["always", "always-sql", "org/always", "org%2Falways"])
async def test_an_llm_is_found_by_any_of_its_names(client: httpx.AsyncClient, name: str) -> None:
    status, entry = await get(client, f"/openai/v1/models/{name}")
    assert (status, entry["id"], entry["owned_by"]) == (200, name.replace("%2F", "/"), "meshserve")


async def test_an_unknown_llm_is_openais_404(client: httpx.AsyncClient) -> None:
    status, body = await get(client, "/v1/models/nothing")
    assert (status, body["error"]["code"], body["error"]["param"]) == (
        404,
        "model_not_found",
        "model",
    )
    assert "`nothing`" in body["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/models"), ("GET", "/v1/modelsx"), ("DELETE", "/openai/v1/models/always")],
)
async def test_other_paths_and_methods_are_404(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    assert (await client.request(method, path)).status_code == 404
