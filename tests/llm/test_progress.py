from __future__ import annotations

from typing import Any

import pytest

from meshserve.core.interfaces import llm_engine
from meshserve.llm import progress

INFINITE = float("inf")


def counts(tokens: int = 0, running: int = 1, **others: Any) -> llm_engine.EngineCounts:
    return llm_engine.EngineCounts(running=running, tokens=tokens, progress=tokens, **others)


def after(*moments: tuple[float, llm_engine.EngineCounts]) -> progress.EngineProgress:
    meter = progress.EngineProgress()
    for now_s, seen in moments:
        meter.observe(now_s, seen)
    return meter


def test_an_engine_that_makes_tokens_does_not_stall() -> None:
    assert after((10, counts(1)), (11, counts(2)), (12, counts(3))).stalled_s == 0


def test_a_stall_lasts_as_long_as_requests_run_without_progress() -> None:
    assert after((10, counts(1)), (11, counts(1)), (15, counts(1))).stalled_s == 5


def test_an_idle_engine_does_not_stall() -> None:
    assert after((10, counts(1, running=0)), (90, counts(1, running=0))).stalled_s == 0


def test_the_first_request_after_a_rest_starts_a_new_stall() -> None:
    assert after((10, counts(1, running=0)), (90, counts(1)), (93, counts(1))).stalled_s == 3


def test_an_engine_whose_requests_all_wait_stalls_too() -> None:
    waiting = llm_engine.EngineCounts(waiting=1)
    assert after((10, waiting), (14, waiting)).stalled_s == 4


def test_the_rate_is_measured_over_half_a_minute() -> None:
    meter = after(
        *((second, counts(second * 10)) for second in range(100)),
        *((second, counts(1000)) for second in range(100, 115)),
    )
    assert meter.tokens_per_s() == pytest.approx(5, rel=0.1)


def test_without_counts_rate_and_time_are_zero() -> None:
    meter = progress.EngineProgress()
    assert (meter.tokens_per_s(), meter.ttft_s(0.5)) == (0, 0)


def test_the_time_to_first_token_is_interpolated_within_its_bucket() -> None:
    first = counts(ttft=((0.1, 0), (1.0, 0), (INFINITE, 0)))
    now = counts(ttft=((0.1, 8), (1.0, 10), (INFINITE, 10)))
    meter = after((10, first), (11, now))
    assert meter.ttft_s(0.5) == pytest.approx(0.1 * 5 / 8)
    assert meter.ttft_s(0.95) == pytest.approx(0.1 + 0.9 * 1.5 / 2)


def test_a_time_beyond_the_last_finite_bound_is_that_bound() -> None:
    meter = after(
        (10, counts(ttft=((0.1, 0), (INFINITE, 0)))), (11, counts(ttft=((0.1, 0), (INFINITE, 4))))
    )
    assert meter.ttft_s(0.5) == 0.1


def test_the_time_is_of_recent_requests_if_there_are_any() -> None:
    slow, fast = ((0.1, 0), (1.0, 10), (INFINITE, 10)), ((0.1, 10), (1.0, 20), (INFINITE, 20))
    assert after((10, counts(ttft=slow)), (11, counts(ttft=fast))).ttft_s(0.5) < 0.1
    assert after((10, counts(ttft=slow)), (11, counts(ttft=slow))).ttft_s(0.5) > 0.1
