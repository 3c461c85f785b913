from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.llm import gpu_bookings
from meshserve.core.values import llm_spec


def node(name: str, gpus: int, gpus_free: int) -> llm_spec.NodeCapacity:
    return llm_spec.NodeCapacity(name, gpus, gpus_free)


# Bookings


def observe(bookings: gpu_bookings.GpuBookings, gpus_free: int, *replica_ids: str) -> None:
    bookings.observe((llm_spec.NodeCapacity("n", 4, gpus_free, replicas=replica_ids),))


@pytest.fixture
def bookings() -> Iterator[gpu_bookings.GpuBookings]:
    fresh = gpu_bookings.GpuBookings()
    observe(fresh, 4)
    yield fresh
    fresh.check()


def gpus_free(bookings: gpu_bookings.GpuBookings) -> int:
    return bookings.free_capacity()[0].gpus_free


def test_nothing_is_booked_before_an_observation_but_for_cpus() -> None:
    fresh = gpu_bookings.GpuBookings()
    assert fresh.book("a", "a/0", 1) == gpu_bookings.UNKNOWN
    assert fresh.book("a", "a/0", 0) == gpu_bookings.ON_CPU
    assert fresh.book_running("a", "a/0", 0, "n") == gpu_bookings.ON_CPU


def test_booked_gpus_are_not_booked_again_though_they_are_still_seen_free(
    bookings: gpu_bookings.GpuBookings,
) -> None:
    assert bookings.book("a", "a/0", 2) == llm_spec.ReplicaPlan((2,), "mp", "n")
    observe(bookings, 4)
    assert gpus_free(bookings) == 2
    assert bookings.book("b", "b/0", 3) == "it needs 3 GPUs and 2 are free on n; a holds 2"


def test_gpus_that_a_replica_is_seen_to_hold_are_subtracted_once(
    bookings: gpu_bookings.GpuBookings,
) -> None:
    bookings.book("a", "a/0", 2)
    observe(bookings, 2)
    assert gpus_free(bookings) == 0
    observe(bookings, 2, "a/0")
    assert gpus_free(bookings) == 2


def test_gpus_of_an_engine_that_runs_are_subtracted_once(
    bookings: gpu_bookings.GpuBookings,
) -> None:
    bookings.book("a", "a/0", 2)
    bookings.mark_running("a")
    bookings.mark_running("unknown")
    observe(bookings, 2)
    assert gpus_free(bookings) == 2


def test_gpus_of_a_dead_engine_stay_booked_though_they_are_seen_free(
    bookings: gpu_bookings.GpuBookings,
) -> None:
    bookings.book("a", "a/0", 3)
    bookings.mark_running("a")
    observe(bookings, 4)
    assert gpus_free(bookings) == 1


def test_a_holder_keeps_its_gpus_for_its_next_replica(bookings: gpu_bookings.GpuBookings) -> None:
    plan = bookings.book("a", "a/0", 3)
    assert bookings.book("a", "a/1", 3) == plan
    assert gpus_free(bookings) == 1


def test_a_holder_that_needs_more_or_whose_node_is_gone_goes_elsewhere(
    bookings: gpu_bookings.GpuBookings,
) -> None:
    bookings.book("a", "a/0", 2)
    assert bookings.book("a", "a/0", 3) == llm_spec.ReplicaPlan((3,), "mp", "n")
    bookings.observe((node("m", 4, 4),))
    assert bookings.book("a", "a/0", 3) == llm_spec.ReplicaPlan((3,), "mp", "m")


def test_gpus_that_were_given_back_are_free_once_they_are_seen_free(
    bookings: gpu_bookings.GpuBookings,
) -> None:
    bookings.book("a", "a/0", 2)
    observe(bookings, 2, "a/0")
    bookings.keep_only([])
    assert (gpus_free(bookings), bookings.gpus_of("a")) == (2, 0)
    observe(bookings, 4)
    assert gpus_free(bookings) == 4


def test_gpus_of_a_replica_that_already_runs_are_booked(bookings: gpu_bookings.GpuBookings) -> None:
    assert bookings.book_running("a", "a/0", 2, "n") == llm_spec.ReplicaPlan((2,), "mp", "n")
    observe(bookings, 2)
    assert (gpus_free(bookings), bookings.gpus_of("a")) == (2, 2)


# The choice of nodes

NODES = st.lists(
    st.builds(
        lambda name, gpus, held: node(name, gpus, max(0, gpus - held)),
        st.sampled_from("abcd"),
        *[st.integers(0, 8)] * 2,
    ),
    unique_by=lambda node: node.node,
)


def test_the_node_that_has_just_enough_takes_all_in_one_bundle() -> None:
    placement = gpu_bookings.choose_nodes(2, [node("a", 8, 8), node("b", 8, 3)])
    assert placement == (llm_spec.ReplicaPlan((2,), "mp", "b"), {"b": 2})


def test_an_engine_that_fits_on_one_node_waits_for_it() -> None:
    assert gpu_bookings.choose_nodes(4, [node("a", 4, 2), node("b", 4, 2)]) is None


def test_an_engine_that_fits_on_no_node_gets_a_bundle_for_each_gpu() -> None:
    placement = gpu_bookings.choose_nodes(5, [node("a", 2, 1), node("b", 4, 4)])
    assert placement == (llm_spec.ReplicaPlan((1, 1, 1, 1, 1), "ray"), {"b": 4, "a": 1})


@given(st.integers(1, 12), NODES)
def test_only_free_gpus_are_taken(gpus: int, nodes: list[llm_spec.NodeCapacity]) -> None:
    placement = gpu_bookings.choose_nodes(gpus, nodes)
    free = {node.node: node.gpus_free for node in nodes}
    if placement is None:
        assert max(free.values(), default=0) < gpus
    else:
        taken = placement.gpus_by_node
        assert sum(taken.values()) == sum(placement.plan.bundles) == gpus
        assert all(count <= free[name] for name, count in taken.items())


@pytest.mark.parametrize(
    ("gpus", "nodes", "holders", "words"),
    [
        (
            2,
            [node("a", 4, 1)],
            {"x/0": 2},
            "it needs 2 GPUs and 1 are free on a; x/0 holds 2; others hold 1",
        ),
        (
            4,
            [node("a", 4, 0), node("b", 4, 3)],
            {"x/0": 5},
            "it needs 4 GPUs and 3 are free on one node: b; x/0 holds 5",
        ),
        (
            8,
            [node("a", 4, 0), node("b", 4, 3)],
            {"x/0": 5},
            "it needs 8 GPUs and 3 are free on the cluster; x/0 holds 5",
        ),
        (1, [node("a", 0, 0)], {}, "it needs 1 GPU and the cluster has 0"),
    ],
)
def test_a_shortage_is_explained_by_the_holders(
    gpus: int, nodes: list[llm_spec.NodeCapacity], holders: dict[str, int], words: str
) -> None:
    assert gpu_bookings.explain_shortage(gpus, nodes, holders) == words
