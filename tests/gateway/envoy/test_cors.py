"""Browsers: which pages may call the mesh."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import cors
from tests.gateway import conftest
from tests.gateway.conftest import running

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]
SHOP = "https://shop.example"
PREFLIGHT = {
    "origin": SHOP,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}
PATHS = [
    "/v2/models/iris/infer",
    "/v1/models/iris:predict",
    "/v1/chat/completions",
    "/v1/models",
    "/mesh/v1/models",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[conftest.Mesh]:
    """A mesh with keys that pages of one origin may call."""
    keys = (snapshots.ApiKey("shop", "secret", admin=True),)
    folder = str(tmp_path_factory.mktemp("gw"))
    async with running(folder, keys=keys, cors_origins=(SHOP,)) as started:
        yield started


async def test_without_origins_there_is_no_policy() -> None:
    assert cors.policy(()) == {}


@pytest.mark.parametrize("path", PATHS)
async def test_a_browsers_question_is_answered_without_a_key(
    shop: conftest.Mesh, path: str
) -> None:
    answer = await shop.http.options(path, headers=PREFLIGHT)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"]


async def test_answers_and_errors_may_be_read_by_the_page(shop: conftest.Mesh) -> None:
    headers = {"origin": SHOP, "x-api-key": "secret"}
    answer = await shop.http.post("/v2/models/iris/infer", content=b"{}", headers=headers)
    assert answer.headers["access-control-allow-origin"] == SHOP
    refused = await shop.http.post("/v2/models/iris/infer", headers={"origin": SHOP})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, SHOP)


async def test_other_pages_may_not(shop: conftest.Mesh) -> None:
    other = PREFLIGHT | {"origin": "https://other.example"}
    answer = await shop.http.options("/v2/models/iris/infer", headers=other)
    assert "access-control-allow-origin" not in answer.headers


async def test_origins_change_while_the_mesh_runs(mesh: conftest.Mesh) -> None:
    path = "/v2/models/iris/infer"
    before = await mesh.http.options(path, headers=PREFLIGHT)
    assert "access-control-allow-origin" not in before.headers
    await mesh.gateway.apply(replace(mesh.snapshot, cors_origins=("*",), revision=1))
    answer = await mesh.http.options(path, headers=PREFLIGHT)
    assert answer.headers["access-control-allow-origin"] in (SHOP, "*")
