from __future__ import annotations

from meshserve.core.values import model
from meshserve.worker.models import request_counts

ID = model.ModelId("m")


def test_a_load_is_taken_once() -> None:
    counts = request_counts.RequestCounts()
    counts.add(ID)
    counts.add(ID, 4)
    counts.stats[ID].saturated_s = 0.5
    assert counts.take_load() == {ID: request_counts.ModelLoad(5, 0.5)}
    assert counts.take_load() == {}
    counts.add(ID)
    assert counts.take_load() == {ID: request_counts.ModelLoad(1, 0.0)}


def test_a_forgotten_model_leaves_nothing() -> None:
    counts = request_counts.RequestCounts()
    counts.add(ID)
    counts.stats[ID].saturated_s = 0.5
    counts.forget(ID)
    assert (dict(counts.stats), counts.take_load()) == ({}, {})
    counts.forget(ID)
