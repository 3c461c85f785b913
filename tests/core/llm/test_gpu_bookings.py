from __future__ import annotations

import pytest

from meshserve.core.llm import gpu_bookings, gpu_placement
from meshserve.core.values import llm_spec


def seen(made, free, *replicas, total=4):
    made.seen((llm_spec.NodeCapacity("n", total, free, replicas=replicas),))


@pytest.fixture
def made():
    fresh = gpu_bookings.GpuBookings()
    seen(fresh, 4)
    yield fresh
    fresh.check()


def free(made):
    return made.free()[0].gpus_free


def test_nothing_is_given_before_anything_was_seen_and_a_cpu_needs_no_room():
    fresh = gpu_bookings.GpuBookings()
    assert fresh.place("a", "a/0", 1) == gpu_bookings.UNKNOWN
    assert fresh.place("a", "a/0", 0) == gpu_placement.CPU == fresh.attach("a", "a/0", 0, "n")


def test_what_is_given_is_not_given_again_before_it_is_seen_gone(made):
    assert made.place("a", "a/0", 2) == llm_spec.ReplicaPlan((2,), "mp", "n")
    seen(made, 4)
    assert free(made) == 2
    assert made.place("b", "b/0", 3) == "it needs 3 GPUs and 2 are free on n; a holds 2"


def test_what_a_replica_is_seen_to_hold_is_not_taken_off_twice(made):
    made.place("a", "a/0", 2)
    seen(made, 2)
    assert free(made) == 0
    seen(made, 2, "a/0")
    assert free(made) == 2


def test_what_an_engine_that_is_up_holds_is_not_taken_off_twice(made):
    made.place("a", "a/0", 2)
    made.is_up("a")
    made.is_up("nobody")
    seen(made, 2)
    assert free(made) == 2


def test_no_two_get_one_gpu_though_more_is_seen_free_than_can_be(made):
    made.place("a", "a/0", 3)
    made.is_up("a")
    seen(made, 4)
    assert free(made) == 1


def test_the_same_holder_stays_where_it_is(made):
    plan = made.place("a", "a/0", 3)
    assert made.place("a", "a/1", 3) == plan
    assert free(made) == 1


def test_a_holder_whose_node_is_gone_or_that_needs_more_goes_elsewhere(made):
    made.place("a", "a/0", 2)
    assert made.place("a", "a/0", 3) == llm_spec.ReplicaPlan((3,), "mp", "n")
    made.seen((llm_spec.NodeCapacity("m", 4, 4),))
    assert made.place("a", "a/0", 3) == llm_spec.ReplicaPlan((3,), "mp", "m")


def test_what_is_given_back_is_free_once_it_is_seen(made):
    made.place("a", "a/0", 2)
    seen(made, 2, "a/0")
    made.keep([])
    assert (free(made), made.gpus_of("a")) == (2, 0)
    seen(made, 4)
    assert free(made) == 4


def test_what_runs_already_is_known(made):
    assert made.attach("a", "a/0", 2, "n") == llm_spec.ReplicaPlan((2,), "mp", "n")
    seen(made, 2)
    assert (free(made), made.gpus_of("a")) == (2, 2)
