from __future__ import annotations

from meshserve.core.mesh import node_views
from meshserve.core.values import events, nodes
from tests.core import world


def test_each_node_is_seen_with_its_drain() -> None:
    mesh_world = world.World(node_names=("n1", "n2"))
    mesh_world.apply(pools=(world.pool(workers=2),))
    mesh_world.feed(events.NodeDrainRequested("n2", 60.0))
    first, second = mesh_world.mesh.view().nodes
    assert first == node_views.NodeView(nodes.ClusterNode("n1", is_head=True))
    worker_id = next(id_ for id_, p in mesh_world.processes.items() if p.node == "n2")
    remaining = (f"worker {worker_id}", "its gateway")
    expected = node_views.NodeView(nodes.ClusterNode("n2"), "moving", remaining=remaining)
    assert second == expected
