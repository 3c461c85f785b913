"""Ray's nodes as the core knows them. That Ray ends one is shown in `test_nodes.py`."""

from __future__ import annotations

import pytest

from meshserve.cluster import cluster_nodes
from meshserve.core.values import nodes

pytestmark = [pytest.mark.edge]


def test_a_record_of_ray_becomes_a_node() -> None:
    record = {
        "NodeID": "ab12",
        "Alive": True,
        "NodeManagerAddress": "10.0.0.1",
        "NodeManagerHostname": "box",
        "NodeName": "named",
        "Resources": {"CPU": 4.0, cluster_nodes.HEAD_RESOURCE: 1.0},
        "Labels": {"zone": "a", "disk": "ssd"},
    }
    labels = (("disk", "ssd"), ("zone", "a"))
    assert cluster_nodes.cluster_node(record) == nodes.ClusterNode(
        "ab12", "named", "10.0.0.1", labels, is_head=True
    )
    bare = {"NodeID": "ab12", "NodeManagerHostname": "box", "Labels": None}
    assert cluster_nodes.cluster_node(bare) == nodes.ClusterNode("ab12", "box")


@pytest.mark.usefixtures("ray_session")
async def test_the_only_node_of_a_ray_of_ours_is_its_head() -> None:
    (node,) = await cluster_nodes.living_nodes()
    assert node.is_head
    assert node.address == "127.0.0.1"
