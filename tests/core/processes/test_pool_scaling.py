"""Pools that follow traces of load, in simulated time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import strategies as st

from meshserve.core.processes import pool_scaling
from meshserve.core.values import desired

TICK_S = 0.5
START_S = 5.0
SCALING = desired.ScalingSettings(1, grow_after_s=5.0, shrink_after_s=300.0)
POOL = desired.PoolSettings(workers=10, scaling=SCALING)

Trace = Callable[[float], float]
"""The cores that requests need, at a time in seconds."""


class PoolRun:
    """A pool whose workers start in START_S, and share the load of a trace evenly.

    `memory` is that of the models in use, in budgets: what the workers have no room for comes and
    goes, and requests wait for it.
    """

    def __init__(self, pool: desired.PoolSettings = POOL, *, count: int = 1) -> None:
        self.pool = pool
        self.size = pool_scaling.PoolSize(count)
        self.now_s = 1000.0
        self.memory = 0.0
        self.counts: list[tuple[float, int]] = []
        self._starting: list[float] = []
        self._ready = count

    def follow(self, trace: Trace, seconds: float) -> None:
        """Let the trace be the load for so long; its times count from now."""
        began_s = self.now_s
        while self.now_s < began_s + seconds:
            self.now_s += TICK_S
            self._step(max(0.0, trace(self.now_s - began_s)))

    def _step(self, offered: float) -> None:
        self._ready += sum(at_s <= self.now_s for at_s in self._starting)
        self._starting = [at_s for at_s in self._starting if at_s > self.now_s]
        before = self.size.count
        self.size.follow(self._load(offered), self.pool, self.now_s)
        if self.size.count > before:
            self._starting += [self.now_s + START_S] * (self.size.count - before)
        self._ready = min(self._ready, self.size.count)
        if self.size.count != before:
            self.counts.append((self.now_s, self.size.count))

    def _load(self, offered: float) -> pool_scaling.PoolLoad:
        lacking = 1 - self._ready / self.memory if self.memory > self._ready else 0.0
        return pool_scaling.PoolLoad(
            self._ready,
            cores=min(offered, float(self._ready)),
            lost=lacking / 2,
            used=min(self.memory, float(self._ready)),
            is_used=offered > 0,
        )

    def changes_in_an_hour(self) -> int:
        """Return the most changes in any hour."""
        return max(
            (
                sum(at_s <= other_s < at_s + pool_scaling.HOUR_S for other_s, _ in self.counts)
                for at_s, _ in self.counts
            ),
            default=0,
        )


def constant(cores: float) -> Trace:
    return lambda _: cores


def test_a_step_up_is_answered_within_a_minute_and_then_nothing_changes() -> None:
    run = PoolRun()
    run.follow(constant(0.3), 600)
    assert run.counts == []
    began_s = run.now_s
    run.follow(constant(4.0), 3600)
    assert run.size.count == math.ceil(4.0 / pool_scaling.BUSY)
    assert run.counts[0][0] - began_s < 10, "the first worker is ordered at once"
    assert run.counts[-1][0] - began_s < 60, run.counts
    assert len(run.counts) <= 5


def test_a_step_down_is_followed_in_two_changes_and_not_before_the_time() -> None:
    run = PoolRun(count=6)
    run.follow(constant(4.0), 600)
    began_s = run.now_s
    run.follow(constant(0.3), 3600)
    # What was needed at most in those five minutes counts, the end of the step up among it.
    assert [count for _, count in run.counts] == [5, 1]
    assert run.counts[0][0] - began_s >= SCALING.shrink_after_s
    assert run.counts[1][0] - began_s < 2 * SCALING.shrink_after_s + 15


def test_a_spike_of_seconds_starts_no_worker() -> None:
    run = PoolRun()
    run.follow(lambda at_s: 5.0 if at_s % 60 < 3 else 0.2, 3600)
    assert run.counts == []


def test_a_spike_of_a_minute_is_served_and_not_forgotten_at_once() -> None:
    run = PoolRun()
    run.follow(lambda at_s: 3.0 if at_s % 240 < 60 else 0.2, 7200)
    assert run.size.count == 5
    assert run.counts == sorted(run.counts, key=lambda change: change[1]), "it never shrinks"


def test_a_load_between_the_bounds_changes_nothing() -> None:
    run = PoolRun(count=4)
    run.follow(lambda at_s: 2.4 + 0.3 * math.sin(at_s / 97), 7200)
    assert run.counts == []


def test_memory_that_is_too_small_brings_workers_one_by_one() -> None:
    run = PoolRun()
    run.memory = 2.8
    run.follow(constant(0.2), 600)
    assert [count for _, count in run.counts] == [2, 3]
    assert run.size.reason == pool_scaling.LOSES
    run.follow(constant(0.2), 3600)
    assert run.size.count == 3, "models in use keep their room"
    run.memory = 0.3
    run.follow(constant(0.2), 600)
    assert run.size.count == 1


def test_loads_that_wait_for_loads_bring_a_worker_only_if_that_lasts() -> None:
    size = pool_scaling.PoolSize(1)
    for step in range(1, 40):
        load = pool_scaling.PoolLoad(1, queued=1.0 if step % 4 == 0 else 0.0)
        size.follow(load, POOL, step * TICK_S)
    assert size.count == 1
    for step in range(40, 60):
        size.follow(pool_scaling.PoolLoad(1, queued=1.0), POOL, step * TICK_S)
    assert size.count == 2
    assert "loads wait" in size.reason


def test_while_workers_start_no_more_are_ordered() -> None:
    size = pool_scaling.PoolSize(3)
    for step in range(1, 200):
        size.follow(pool_scaling.PoolLoad(2, cores=2.0), POOL, step * TICK_S)
    assert size.count == 3


def test_a_busy_model_brings_the_workers_that_it_may_be_on() -> None:
    size = pool_scaling.PoolSize(1)
    for step in range(1, 20):
        size.follow(pool_scaling.PoolLoad(1, hot=4), POOL, step * TICK_S)
    assert size.count == 4


@pytest.mark.parametrize("least", [0, 1, 3])
def test_without_requests_a_pool_has_the_fewest_workers(least: int) -> None:
    scaling = dataclasses.replace(SCALING, workers_min=least)
    run = PoolRun(dataclasses.replace(POOL, scaling=scaling), count=5)
    run.memory = 4.0
    run.follow(constant(0.0), 299)
    assert run.counts == [], "not yet"
    run.follow(constant(0.0), 60)
    assert [count for _, count in run.counts] == [least]
    run.follow(constant(0.0), 3600)
    assert len(run.counts) == 1


def test_a_pool_that_changes_too_often_gets_all_and_stays_big_for_the_hour() -> None:
    quick = dataclasses.replace(SCALING, grow_after_s=1.0, shrink_after_s=1.0)
    run = PoolRun(dataclasses.replace(POOL, scaling=quick))
    run.follow(lambda at_s: 3.0 if at_s % 60 < 30 else 0.0, 7200)
    assert run.changes_in_an_hour() <= pool_scaling.CHANGES_MAX + 1
    assert max(count for _, count in run.counts) == POOL.workers


@hypothesis.given(
    st.lists(st.tuples(st.floats(0, 20), st.floats(1, 900)), min_size=1, max_size=20),
    st.floats(0, 6),
    st.integers(0, 3),
    st.floats(0.5, 30),
    st.floats(0.5, 400),
)
@hypothesis.settings(deadline=None, max_examples=30)
def test_any_trace_keeps_the_bounds_and_changes_seldom(
    steps: list[tuple[float, float]], memory: float, least: int, grow_s: float, shrink_s: float
) -> None:
    scaling = desired.ScalingSettings(least, grow_s, shrink_s)
    run = PoolRun(dataclasses.replace(POOL, scaling=scaling), count=max(1, least))
    run.memory = memory
    for cores, seconds in steps:
        run.follow(constant(cores), seconds)
    assert all(least <= count <= POOL.workers for _, count in run.counts)
    assert run.changes_in_an_hour() <= pool_scaling.CHANGES_MAX + 2
    # A load that stays is answered by a number that stays.
    run.follow(constant(2.0), pool_scaling.HOUR_S + 2 * shrink_s)
    settled = len(run.counts)
    run.follow(constant(2.0), 600)
    assert len(run.counts) == settled
    assert run.size.count >= min(POOL.workers, math.ceil(2.0 / pool_scaling.BUSY))


def test_a_pool_that_would_sleep_again_says_that_it_changed_too_often_and_sleeps_in_the_end() -> (
    None
):
    quick = dataclasses.replace(SCALING, workers_min=0, grow_after_s=1.0, shrink_after_s=1.0)
    run = PoolRun(dataclasses.replace(POOL, workers=2, scaling=quick), count=0)
    began_s = run.now_s
    while run.size.changes < pool_scaling.CHANGES_MAX:
        run.follow(constant(0.3), 12)
        run.follow(constant(0.0), 12)
    assert run.size.words == "nobody calls its models"
    run.size.set(1, "a request came", run.now_s)
    run.follow(constant(0.0), 30)
    assert run.size.count == 1
    assert "12 times within an hour" in run.size.words
    run.follow(constant(0.3), 30)
    assert run.size.words == run.size.reason == "a request came", "it is called again"
    run.follow(constant(0.0), began_s + pool_scaling.HOUR_S + 600 - run.now_s)
    assert run.size.count == 0
    assert run.size.words == "nobody calls its models"
