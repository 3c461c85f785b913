from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.llm import autoscaling
from meshserve.core.values import llm_spec
from tests.core import llm_world


def spec(least, most):
    return llm_world.spec("a", replicas_min=least, replicas_max=most)


LOADS = st.builds(
    autoscaling.LlmLoad,
    st.integers(0, 9),
    st.integers(0, 9),
    st.floats(0, 500),
    st.floats(0, 500),
    st.booleans(),
)


@given(st.integers(0, 3), st.integers(1, 5), LOADS)
def test_the_number_stays_within_its_bounds(least, more, load):
    number = autoscaling.wanted(spec(least, least + more), load)
    assert max(least, load.is_used) <= number <= least + more or not load.is_used


@given(st.integers(1, 5), LOADS)
def test_it_changes_by_one_at_a_time(most, load):
    before = min(max(load.wanted, 1), most)
    assert (
        abs(autoscaling.wanted(spec(1, most), load._replace(wanted=before, is_used=True)) - before)
        <= 1
    )


@pytest.mark.parametrize(
    ("load", "number"),
    [
        (autoscaling.LlmLoad(0, 0, is_used=False), 0),
        (autoscaling.LlmLoad(0, 0), 1),
        (autoscaling.LlmLoad(1, 1, pressed_s=9.9), 1),
        (autoscaling.LlmLoad(1, 1, pressed_s=10.0), 2),
        (autoscaling.LlmLoad(2, 1, pressed_s=99.0), 2),
        (autoscaling.LlmLoad(3, 3, pressed_s=99.0), 3),
        (autoscaling.LlmLoad(3, 3, quiet_s=119.0), 3),
        (autoscaling.LlmLoad(3, 3, quiet_s=120.0), 2),
        (autoscaling.LlmLoad(1, 1, quiet_s=999.0), 1),
        (autoscaling.LlmLoad(3, 3, is_used=False), 0),
    ],
)
def test_the_number_follows_the_load(load, number):
    assert autoscaling.wanted(spec(0, 3), load) == number


def test_there_are_never_fewer_than_the_least_though_nobody_uses_it():
    assert autoscaling.wanted(spec(2, 3), autoscaling.LlmLoad(3, 3, is_used=False)) == 2


def reports(*counts):
    return [
        llm_spec.LlmReport(f"a/{number}", running, waiting)
        for number, (running, waiting) in enumerate(counts)
    ]


def test_requests_that_wait_press():
    assert autoscaling.is_pressed(reports((8, 0), (8, 1)))
    assert not autoscaling.is_pressed(reports((8, 0), (8, 0)))


def test_fewer_requests_than_engines_are_quiet():
    assert autoscaling.is_quiet(reports((1, 0), (0, 0)))
    assert not autoscaling.is_quiet(reports((1, 0), (1, 0)))
    assert not autoscaling.is_quiet(reports((0, 1), (0, 0)))
