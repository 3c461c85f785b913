from __future__ import annotations

from meshserve.core.values import nodes

GPU = (("accelerator", "h100"), ("zone", "a"))


def test_a_node_has_the_labels_that_it_has() -> None:
    node = nodes.ClusterNode("n", labels=GPU)
    assert node.has_labels(())
    assert node.has_labels((("zone", "a"),))
    assert node.has_labels(GPU)
    assert not node.has_labels((("zone", "b"),))
    assert not node.has_labels((*GPU, ("disk", "ssd")))


def test_a_node_is_called_by_all_that_is_known_of_it() -> None:
    id_ = "07a94a766bdf3e78effed26916145b29"
    assert str(nodes.ClusterNode(id_)) == "07a94a766bdf"
    assert str(nodes.ClusterNode(id_, "box", "10.0.0.3")) == "10.0.0.3 box (07a94a766bdf)"
    # Ray calls a node without a name by its address.
    assert str(nodes.ClusterNode(id_, "10.0.0.3", "10.0.0.3")) == "10.0.0.3 (07a94a766bdf)"
