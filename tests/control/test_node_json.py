from __future__ import annotations

import math
from typing import Any

import pytest

from meshserve import errors
from meshserve.control import node_json
from meshserve.core.mesh import node_views
from meshserve.core.values import events, nodes
from meshserve.protocol import paths
from tests import support
from tests.control import conftest

NODE = nodes.ClusterNode("aaaa", "box", "10.0.0.3", is_head=True)


def test_a_node_is_told_with_its_drain() -> None:
    ready = node_json.node(node_views.NodeView(NODE))
    assert ready == {
        "id": "aaaa",
        "name": "box",
        "address": "10.0.0.3",
        "is_head": True,
        "state": "ready",
        "drain": None,
    }
    drained = node_json.node(node_views.NodeView(NODE, "moving", 3, 4, 1, 2, ("its gateway",)))
    assert drained["drain"] == {
        "moved": 3,
        "to_move": 4,
        "failed": 1,
        "without_room": 2,
        "remaining": ["its gateway"],
    }


def test_a_body_may_say_how_long_and_what_then() -> None:
    assert node_json.drain_request("n", {}) == events.NodeDrainRequested("n", node_json.MOVE_S)
    wanted = events.NodeDrainRequested("n", 5.0, is_ended=True)
    assert node_json.drain_request("n", {"timeout_s": 5, "end": True}) == wanted


@pytest.mark.parametrize(
    "body",
    [
        {"timeout_s": -1},
        {"timeout_s": "5"},
        {"timeout_s": True},
        {"timeout_s": math.inf},
        {"timeout_s": None},
        {"end": "yes"},
        {"end": 1},
        {"timeout": 5},
    ],
)
def test_a_body_that_says_something_else_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidRequest):
        node_json.drain_request("n", body)


async def test_a_node_is_drained_through_the_api(fresh: conftest.Stage) -> None:
    fresh.cluster.node_names = ("n1", "n2")
    await fresh.start(conftest.CONFIG)
    path = f"{paths.NODES}/n1/drain"
    async with fresh.client() as client:
        unknown = await client.post(f"{paths.NODES}/n9/drain")
        assert (unknown.status_code, "n1, n2" in unknown.text) == (400, True)
        granted = await client.post(path, json={"timeout_s": 0})
        assert granted.json()["changes"][0] == "node n1 drains"

        async def node() -> Any:
            await fresh.clock.advance(1.0)
            return (await client.get(f"{paths.MESH_V1}status")).json()["nodes"][0]

        await support.wait_until_async(
            lambda: fresh.mesh.drains.drains["n1"].phase == "drained", what="it is drained"
        )
        assert (await node())["state"] == "drained"
        assert {worker.endpoint.node for worker in fresh.cluster.workers.values()} == {"n2"}
        assert (await client.post(f"{paths.NODES}/n2/drain")).status_code == 409
        assert (await client.delete(path)).status_code == 200
        assert (await node())["state"] == "ready"
