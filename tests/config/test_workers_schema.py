from __future__ import annotations

from typing import Any

import pytest

from meshserve import config, errors
from meshserve.config import desired_state
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import desired

CAPACITY = cluster_control.WorkerCapacity(cores=4, gpus=2)


def pool(workers: Any, **keys: Any) -> desired.PoolSettings:
    parsed = config.parse({"pools": {"default": {"workers": workers, **keys}}})
    # What a restarted controller reads must mean the same.
    assert config.parse(config.document(parsed)) == parsed
    return desired_state.from_config(parsed, CAPACITY).pools[0]


def test_bounds_are_those_of_the_core() -> None:
    scaled = pool({"min": 0, "max": 3, "grow_after_s": 2.0, "shrink_after_s": 9.0, "wait_s_max": 7})
    assert (scaled.workers_min, scaled.workers) == (0, 3)
    assert scaled.scaling is not None
    assert (scaled.scaling.grow_after_s, scaled.scaling.shrink_after_s) == (2.0, 9.0)
    assert scaled.scaling.held.wait_s_max == 7.0
    assert scaled.can_sleep


def test_what_is_left_out_has_a_default() -> None:
    scaled = pool({})
    assert (scaled.workers_min, scaled.workers) == (1, 4)
    on_gpus = pool({"max": "auto"}, device="cuda", gpu_memory="1GiB")
    assert (on_gpus.workers_min, on_gpus.workers) == (1, 2)


@pytest.mark.parametrize(("workers", "count"), [(3, 3), ("auto", 4)])
def test_a_number_and_auto_stay_fixed(workers: Any, count: int) -> None:
    fixed = pool(workers)
    assert (fixed.workers_min, fixed.workers, fixed.scaling) == (count, count, None)


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ({"min": 4, "max": 3}, "pools.default.workers: min is 4, more than max, which is 3"),
        ({"max": 0}, "pools.default.workers.max: expected auto or a whole number of at least 1"),
        ({"max": True}, "pools.default.workers.max: expected auto or a whole number"),
        ({"min": -1}, "pools.default.workers.min: expected at least 0, got -1"),
        ({"min": True}, "pools.default.workers.min: expected a whole number, got true"),
        ({"min": 1.5}, "pools.default.workers.min: expected a whole number, got 1.5"),
        ({"mx": 3}, "pools.default.workers.mx: unknown key; did you mean 'max'?"),
        ({"shrink_after_s": 0}, "shrink_after_s: expected more than 0"),
        ({"max": 100_000}, "a pool has 16383 workers at most"),
        ({"min": 5, "max": "auto"}, "{min: 5, max: auto}, and auto is 4 here"),
        (0, "pools.default.workers: expected auto or a whole number of at least 1, got 0"),
        (True, "pools.default.workers: expected auto or a whole number"),
        ([1, 3], "pools.default.workers: expected auto or a whole number"),
        (None, "pools.default.workers: expected auto or a whole number"),
    ],
)
def test_what_no_pool_can_have_is_refused(workers: Any, message: str) -> None:
    with pytest.raises(errors.ConfigInvalid) as caught:
        pool(workers)
    assert message in str(caught.value)
