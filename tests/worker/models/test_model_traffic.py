from __future__ import annotations

import contextlib

from meshserve import errors
from meshserve.core.values import model, model_figures
from meshserve.worker.models import model_traffic

A = model.ModelId("a")


def record(traffic: model_traffic.ModelTraffic, id_: model.ModelId = A) -> None:
    traffic.fresh[id_].record_answer(0.001, 1, 1)


def requests(batch: model_figures.FiguresBatch) -> dict[str, int]:
    return {id_.name: figures.requests for id_, figures in batch.figures}


def test_a_batch_comes_again_until_it_has_arrived() -> None:
    traffic = model_traffic.ModelTraffic()
    record(traffic)
    first = traffic.next_batch(has_arrived=False)
    record(traffic)
    assert traffic.next_batch(has_arrived=False) == first
    second = traffic.next_batch(has_arrived=True)
    assert (first.number, second.number, first.process) == (1, 2, second.process)
    assert (requests(first), requests(second)) == ({"a": 1}, {"a": 1})
    assert traffic.next_batch(has_arrived=True).figures == ()
    # Lost without figures: nothing has to come again.
    record(traffic)
    assert requests(traffic.next_batch(has_arrived=False)) == {"a": 1}


def test_processes_are_told_apart() -> None:
    first, second = model_traffic.ModelTraffic(), model_traffic.ModelTraffic()
    assert first.next_batch(has_arrived=True).process != second.next_batch(has_arrived=True).process


def test_many_models_come_in_several_batches() -> None:
    traffic = model_traffic.ModelTraffic()
    for number in range(model_traffic.BATCH_MODELS_MAX + 3):
        record(traffic, model.ModelId(str(number)))
    sizes = [len(traffic.next_batch(has_arrived=True).figures) for _ in range(3)]
    assert sizes == [model_traffic.BATCH_MODELS_MAX, 3, 0]


def test_a_cold_call_counts_however_it_ends() -> None:
    traffic = model_traffic.ModelTraffic()
    failure = errors.LoadFailed("no")
    with contextlib.suppress(errors.LoadFailed), traffic.waiting(A), traffic.waiting(A):
        assert traffic.cold == {A: 2}
        raise failure
    assert traffic.cold == {}
    figures = traffic.fresh[A]
    assert figures.cold_calls == 2
    assert figures.cold_s > 0
