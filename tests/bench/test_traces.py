from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench import traces

COUNT, REQUESTS = 300, 6_000


@pytest.mark.parametrize("make", traces.TRACES)
def test_a_trace_is_the_same_each_time_and_in_order(make: Any) -> None:
    one, other = make(COUNT, REQUESTS), make(COUNT, REQUESTS)
    np.testing.assert_array_equal(one.models, other.models)
    assert (np.diff(one.at_s) >= 0).all()
    assert set(one.models.tolist()) <= set(range(COUNT))


def test_zipf_is_steep_and_steady() -> None:
    trace = traces.zipf(COUNT, REQUESTS)
    counts = np.sort(np.bincount(trace.models, minlength=COUNT))[::-1]
    assert counts[0] == pytest.approx(REQUESTS / (np.arange(1, COUNT + 1) ** -1.0).sum(), rel=0.2)


def test_with_drift_the_popular_change() -> None:
    trace = traces.zipf_drift(COUNT, REQUESTS)
    first, last = (
        set(np.argsort(np.bincount(part, minlength=COUNT))[-30:].tolist())
        for part in np.array_split(trace.models, 2)
    )
    assert first != last


def test_a_day_has_few_busy_models_and_many_quiet_ones() -> None:
    trace = traces.day(COUNT, REQUESTS)
    counts = np.sort(np.bincount(trace.models, minlength=COUNT))
    assert trace.at_s.max() <= traces.DAY_S
    assert counts[-COUNT // 10 :].sum() > 0.7 * counts.sum()


def test_sizes_are_bounded_and_load_times_grow_with_them() -> None:
    models = traces.models(5_000)
    assert models.bytes.min() >= traces.MEDIAN_BYTES / traces.SIZE_MAX_TIMES
    assert models.bytes.max() <= traces.MEDIAN_BYTES * traces.SIZE_MAX_TIMES
    assert np.corrcoef(np.log(models.bytes), np.log(models.load_s))[0, 1] > 0.3
