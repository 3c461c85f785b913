"""What a controller answers has the promised keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from meshserve.protocol import mesh_status, paths
from tests.control import conftest, llms


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    stage = conftest.Stage(str(tmp_path))
    await stage.start(llms.CONFIG | {"models": [{"name": "conf", "uri": "/conf"}]})
    async with stage.client() as http:
        yield http
    await stage.plane.close()


async def test_a_status_has_the_promised_keys(client: httpx.AsyncClient) -> None:
    status = (await client.get(f"{paths.MESH_V1}status")).json()
    (gateway, *_), (llm, *_) = status["gateways"], status["llms"]
    worker = status["pools"][0]["workers"][0]
    for view, promised in [
        (status, mesh_status.MeshStatus),
        (status["pools"][0], mesh_status.PoolStatus),
        (worker, mesh_status.WorkerStatus),
        (worker["booked_bytes"], mesh_status.ByteCounts),
        (gateway, mesh_status.GatewayStatus),
        (llm, mesh_status.LlmStatus),
        (llm["replicas"][0], mesh_status.ReplicaStatus),
        (status["models"], mesh_status.ModelCounts),
        (status["controller"], mesh_status.ControllerStatus),
    ]:
        assert view.keys() == promised.__annotations__.keys()


async def test_a_page_of_models_has_the_promised_keys(client: httpx.AsyncClient) -> None:
    page = (await client.get(f"{paths.MESH_V1}models")).json()
    assert page.keys() == mesh_status.ModelPage.__annotations__.keys()
    shown = page["models"][0]
    assert shown.keys() == mesh_status.ModelStatus.__annotations__.keys()
    assert shown["joining"].keys() == mesh_status.JoiningStatus.__annotations__.keys()
