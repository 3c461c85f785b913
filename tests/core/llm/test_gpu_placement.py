from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.llm import gpu_placement
from meshserve.core.values import llm_spec

NODES = st.lists(
    st.builds(
        lambda name, total, held: llm_spec.NodeCapacity(name, total, max(0, total - held)),
        st.sampled_from("abcd"),
        *[st.integers(0, 8)] * 2,
    ),
    unique_by=lambda node: node.node,
)


def test_one_node_that_has_them_takes_all_in_one_bundle():
    placed = gpu_placement.place(
        2, [llm_spec.NodeCapacity("a", 8, 8), llm_spec.NodeCapacity("b", 8, 3)]
    )
    assert placed == (llm_spec.ReplicaPlan((2,), "mp", "b"), {"b": 2})


def test_what_fits_on_one_node_is_not_torn_apart():
    assert (
        gpu_placement.place(4, [llm_spec.NodeCapacity("a", 4, 2), llm_spec.NodeCapacity("b", 4, 2)])
        is None
    )


def test_what_fits_on_no_node_is_spread_a_bundle_a_gpu():
    placed = gpu_placement.place(
        5, [llm_spec.NodeCapacity("a", 2, 1), llm_spec.NodeCapacity("b", 4, 4)]
    )
    assert placed == (llm_spec.ReplicaPlan((1, 1, 1, 1, 1), "ray"), {"b": 4, "a": 1})


@given(st.integers(1, 12), NODES)
def test_nothing_is_taken_that_is_not_free(gpus, nodes):
    placed = gpu_placement.place(gpus, nodes)
    free = {node.node: node.gpus_free for node in nodes}
    if placed is not None:
        assert sum(placed.takes.values()) == sum(placed.plan.bundles) == gpus
        assert all(count <= free[node] for node, count in placed.takes.items())
    else:
        assert max(free.values(), default=0) < gpus


def test_what_is_missing_is_told_with_what_holds_it():
    one = [llm_spec.NodeCapacity("a", 4, 1)]
    assert (
        gpu_placement.missing(2, one, {"x/0": 2})
        == "it needs 2 GPUs and 1 are free on a; x/0 holds 2; others hold 1"
    )
    two = [llm_spec.NodeCapacity("a", 4, 0), llm_spec.NodeCapacity("b", 4, 3)]
    assert (
        gpu_placement.missing(4, two, {"x/0": 5})
        == "it needs 4 GPUs and 3 are free on one node: b; x/0 holds 5"
    )
    assert (
        gpu_placement.missing(8, two, {"x/0": 5})
        == "it needs 8 GPUs and 3 are free on the cluster; x/0 holds 5"
    )
    assert (
        gpu_placement.missing(1, [llm_spec.NodeCapacity("a", 0, 0)], {})
        == "it needs 1 GPU and the cluster has 0"
    )
