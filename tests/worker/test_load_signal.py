from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meshserve.core.values import model, reports
from meshserve.worker import load_signal
from meshserve.worker.models import model_host

ONE, OTHER, THIRD, FOURTH = (model.ModelId(name) for name in ("one", "other", "third", "fourth"))


class Time:
    """What the clocks say."""

    def __init__(self) -> None:
        self.now_s = self.spent_s = 100.0

    def signal(self, host: model_host.ModelHost) -> load_signal.LoadSignal:
        return load_signal.LoadSignal(host, lambda: self.now_s, lambda: self.spent_s)

    def goes(self, seconds: float, busy: float) -> None:
        self.now_s += seconds
        self.spent_s += seconds * busy


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def host(hosting: Callable[..., model_host.ModelHost]) -> model_host.ModelHost:
    return hosting()


def asked(host: model_host.ModelHost, **counts: Any) -> None:
    for name, count in counts.items():
        host._counts.add(model.ModelId(name), count)


def shares(demands: tuple[reports.ModelDemand, ...]) -> list[tuple[str, float]]:
    return [(demand.id.name, round(demand.share, 3)) for demand in demands]


async def test_a_model_has_the_part_of_the_event_loop_that_its_requests_have(
    host: model_host.ModelHost, time: Time
) -> None:
    demands = time.signal(host)
    asked(host, one=75, other=25)
    time.goes(2.0, 0.8)
    assert shares(demands.take()) == [("one", 0.6), ("other", 0.2)]
    time.goes(2.0, 0.8)
    assert demands.take() == (), "nobody asked for anything since"


async def test_a_saturated_model_is_busy_even_if_the_loop_is_idle(
    host: model_host.ModelHost, time: Time
) -> None:
    demands = time.signal(host)
    asked(host, one=1)
    host._counts.stats[ONE].saturated_s = 0.9
    time.goes(1.0, 0.01)
    assert demands.take() == (reports.ModelDemand(ONE, 0.9),)
    assert host.stats[ONE].saturated_s == 0


async def test_a_report_that_comes_too_soon_repeats_the_last_one(
    host: model_host.ModelHost, time: Time
) -> None:
    demands = time.signal(host)
    asked(host, one=1)
    time.goes(1.0, 0.5)
    first = demands.take()
    asked(host, other=1)
    time.goes(0.1, 1.0)
    assert demands.take() == first == (reports.ModelDemand(ONE, 0.5),)
    time.goes(0.9, 0.5)
    assert shares(demands.take()) == [("other", 0.55)]


async def test_only_the_busiest_models_are_reported(host: model_host.ModelHost, time: Time) -> None:
    demands = time.signal(host)
    asked(host, one=40, other=30, third=20, fourth=10)
    time.goes(1.0, 1.0)
    assert shares(demands.take()) == [("one", 0.4), ("other", 0.3), ("third", 0.2)]
    asked(host, one=96, other=4)
    time.goes(1.0, 1.0)
    assert shares(demands.take()) == [("one", 0.96)]
