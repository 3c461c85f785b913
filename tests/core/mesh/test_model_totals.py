"""Totals over workers: nothing is counted twice, nothing falls, and few models have a place."""

from __future__ import annotations

import random

import pytest

from meshserve.core.catalog import catalog_index
from meshserve.core.mesh import model_totals
from meshserve.core.values import catalog, desired, model, model_figures

PLACES = 3
IDS = [model.ModelId(f"m{number}") for number in range(10)]


@pytest.fixture
def index() -> catalog_index.CatalogIndex:
    fresh = catalog_index.CatalogIndex()
    fresh.apply(desired.Desired(metrics=desired.MetricsSettings(PLACES)))
    for id_ in IDS:
        fresh.apply(catalog.ModelDeclared(model.ModelSpec(id_, f"/models/{id_.name}")))
    return fresh


@pytest.fixture
def totals(index: catalog_index.CatalogIndex) -> model_totals.ModelTotals:
    return model_totals.ModelTotals(index)


def batch(number: int, process: int = 7, **requests: int) -> model_figures.FiguresBatch:
    """Return a batch with so many requests of each model."""
    figures = []
    for name, count in requests.items():
        figures.append((model.ModelId(name), model_figures.ModelFigures()))
        for _ in range(count):
            figures[-1][1].record_answer(0.001, 1, 1)
    return model_figures.FiguresBatch(process, number, tuple(figures))


def counted(totals: model_totals.ModelTotals) -> dict[str, int]:
    shown = {id_.name: figures.requests for id_, figures in totals.shown.items()}
    return shown | {"rest": totals.rest.requests}


def test_workers_and_their_next_processes_add_up(totals: model_totals.ModelTotals) -> None:
    totals.take("w-0", batch(1, m0=2), 0.0)
    totals.take("w-1", batch(1, m0=3), 0.0)
    # Another process of the same worker counts its batches from the first one again.
    totals.take("w-0", batch(1, process=8, m0=1, m1=1), 1.0)
    assert counted(totals) == {"m0": 6, "m1": 1, "rest": 0}


def test_a_batch_that_comes_again_counts_once(totals: model_totals.ModelTotals) -> None:
    for _ in range(3):
        totals.take("w-0", batch(1, m0=2), 0.0)
    totals.take("w-0", batch(2, m0=2), 0.0)
    totals.take("w-0", model_figures.FiguresBatch(7, 2), 0.0)
    assert counted(totals) == {"m0": 4, "rest": 0}


def test_a_later_controller_goes_on(
    totals: model_totals.ModelTotals, index: catalog_index.CatalogIndex
) -> None:
    totals.take("w-0", batch(1, m0=2), 0.0)
    later = model_totals.ModelTotals(index)
    later.restore(totals.saved)
    later.take("w-0", batch(1, m0=2), 0.0)
    later.take("w-0", batch(2, m0=5), 0.0)
    assert counted(later) == {"m0": 7, "rest": 0}


def test_models_without_a_place_count_as_one(totals: model_totals.ModelTotals) -> None:
    totals.take("w-0", batch(1, **{id_.name: 1 for id_ in IDS}), 0.0)
    assert counted(totals) == {"m0": 1, "m1": 1, "m2": 1, "rest": 7}


def test_the_most_used_get_the_places_and_what_was_counted_stays(
    totals: model_totals.ModelTotals,
) -> None:
    totals.take("w-0", batch(1, m0=1, m1=5, m2=5, m8=4), 1.0)
    totals.take("w-0", batch(2), 1.0 + model_totals.REVIEW_S)
    totals.take("w-0", batch(3, m8=2), 2.0 + model_totals.REVIEW_S)
    assert counted(totals) == {"m1": 5, "m2": 5, "m8": 2, "rest": 4}
    # Used a little more than another it takes no place: the two would change it for ever.
    totals.take("w-0", batch(4, m0=4), 2.0 + model_totals.REVIEW_S)
    totals.take("w-0", batch(5), 2.0 + 2 * model_totals.REVIEW_S)
    assert set(counted(totals)) == {"m1", "m2", "m8", "rest"}


def test_a_model_that_comes_back_goes_on_from_its_total(totals: model_totals.ModelTotals) -> None:
    totals.take("w-0", batch(1, m0=3, m1=100, m2=100, m8=50), 1.0)
    totals.take("w-0", batch(2, m8=1), 1.0 + model_totals.REVIEW_S)
    assert "m0" not in counted(totals)
    totals.take("w-0", batch(3, m0=1000), 2.0 + 2 * model_totals.REVIEW_S)
    totals.take("w-0", batch(4, m0=1), 3.0 + 3 * model_totals.REVIEW_S)
    assert counted(totals)["m0"] == 4


def test_withdrawn_models_give_their_places_back(
    totals: model_totals.ModelTotals, index: catalog_index.CatalogIndex
) -> None:
    totals.take("w-0", batch(1, m0=1, m1=1, m2=1), 1.0)
    index.apply(catalog.ModelWithdrawn(IDS[0]))
    totals.take("w-0", batch(2, m5=1), 1.0 + model_totals.REVIEW_S)
    totals.take("w-0", batch(3, m5=1, m0=4), 2.0 + model_totals.REVIEW_S)
    assert counted(totals) == {"m1": 1, "m2": 1, "m5": 2, "rest": 4}


@pytest.mark.parametrize("seed", range(20))
def test_no_series_ever_falls_and_each_request_counts_once(
    seed: int, index: catalog_index.CatalogIndex
) -> None:
    chance = random.Random(seed)
    totals = model_totals.ModelTotals(index)
    highest: dict[str, int] = {}
    grown, sent = 0, 0
    numbers = {"w-0": 0, "w-1": 0}
    processes = {"w-0": 1, "w-1": 2}
    for step in range(300):
        worker = chance.choice(("w-0", "w-1"))
        if chance.random() < 0.05:
            processes[worker], numbers[worker] = chance.randrange(1 << 60), 0
        if chance.random() < 0.05:
            later = model_totals.ModelTotals(index)
            later.restore(totals.saved)
            totals = later
        numbers[worker] += 1
        hot = chance.randrange(10)
        uses = {f"m{(hot + k) % 10}": chance.randrange(20) for k in range(4)}
        sent += sum(uses.values())
        for _ in range(chance.choice((1, 1, 2))):
            before = counted(totals)
            totals.take(worker, batch(numbers[worker], processes[worker], **uses), step * 20.0)
            after = counted(totals)
            grown += sum(max(0, after[name] - before.get(name, 0)) for name in after) - sum(
                highest.get(name, 0) for name in after if name not in before
            )
            assert len(after) <= PLACES + 1
            assert all(after[name] >= highest.get(name, 0) for name in after), step
            highest |= after
    assert grown == sent
