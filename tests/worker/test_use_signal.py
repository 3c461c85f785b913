from __future__ import annotations

from collections.abc import Callable

import pytest

from meshserve.core.values import model, reports
from meshserve.worker import use_signal
from meshserve.worker.models import model_host


class Clocks:
    def __init__(self) -> None:
        self.now_s = self.spent_s = 100.0

    def signal(self, host: model_host.ModelHost) -> use_signal.UseSignal:
        return use_signal.UseSignal(host, lambda: self.now_s, lambda: self.spent_s)

    def goes(self, seconds: float, cores: float = 0.0) -> None:
        self.now_s += seconds
        self.spent_s += seconds * cores


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
async def host(hosting: Callable[..., model_host.ModelHost]) -> model_host.ModelHost:
    return hosting()


async def test_the_time_of_all_threads_is_told_in_cores(
    host: model_host.ModelHost, clocks: Clocks
) -> None:
    signal = clocks.signal(host)
    clocks.goes(2.0, cores=1.5)
    assert signal.take().cores == pytest.approx(1.5)
    clocks.goes(1.0)
    assert signal.take().cores == 0.0


async def test_a_report_that_comes_too_soon_repeats_the_last_one(
    host: model_host.ModelHost, clocks: Clocks
) -> None:
    signal = clocks.signal(host)
    clocks.goes(1.0, cores=0.5)
    first = signal.take()
    clocks.goes(0.1, cores=1.0)
    assert signal.take() == first


async def test_the_share_of_looks_at_loads_that_wait_is_told(
    host: model_host.ModelHost, clocks: Clocks
) -> None:
    signal = clocks.signal(host)
    admission = host.residency.admission
    for is_waiting in (True, True, False, False):
        admission.queue.clear()
        if is_waiting:
            admission.queue["key"] = None  # type: ignore[assignment]
        signal.sample()
        clocks.goes(0.25)
    assert signal.take() == reports.WorkerUse(queued=0.5)


async def test_only_a_load_of_what_was_evicted_lately_is_lost_time(
    host: model_host.ModelHost, clocks: Clocks
) -> None:
    signal = clocks.signal(host)
    residency = host.residency
    for key, evicted_s in (("old", clocks.now_s - 601.0), ("new", clocks.now_s - 1.0)):
        residency.counts.note_eviction(key, evicted_s)
    for key in ("old", "other", "new", "old"):
        residency.admission.in_progress = {key: None}  # type: ignore[dict-item]
        signal.sample()
    clocks.goes(1.0)
    assert signal.take().lost == 0.25
    residency.admission.in_progress.clear()


async def test_memory_counts_as_used_for_some_minutes(
    host: model_host.ModelHost, clocks: Clocks
) -> None:
    signal = clocks.signal(host)
    clocks.goes(1.0)
    assert signal.take().used == model.NO_BYTES


def test_a_process_that_works_is_busy() -> None:
    busy = use_signal.BusyTime()
    before_s = busy.read_s()
    while busy.read_s() == before_s:
        sum(range(1000))
