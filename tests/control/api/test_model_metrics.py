from __future__ import annotations

import math
from typing import Any

import prometheus_client
import pytest
from prometheus_client import parser

from meshserve.control.api import model_metrics
from meshserve.core.values import desired, model, model_figures
from tests.core import world

PLACES = 3
SERIES_MAX = 26
"""Series of one model, with two codes of failures."""


@pytest.fixture
def mesh_world() -> world.World:
    fresh = world.World()
    fresh.apply(
        pools=(world.pool(workers=2),),
        metrics=desired.MetricsSettings(PLACES),
        models=tuple(world.spec(f"m{number}") for number in range(10)),
    )
    return fresh


def figures(requests: int = 1) -> model_figures.ModelFigures:
    counted = model_figures.ModelFigures()
    for _ in range(requests):
        counted.record_answer(0.003, 10, 20)
    counted.record_failure(424)
    counted.record_failure(500)
    counted.record_cold_call(2.0)
    counted.joined_rows, counted.loads, counted.load_s, counted.evictions = 4, 1, 0.5, 2
    return counted


def tell(mesh_world: world.World, worker_id: str, number: int, **counted: int) -> None:
    pairs = tuple((model.ModelId(name), figures(count)) for name, count in counted.items())
    mesh_world.hear_report(worker_id, figures=model_figures.FiguresBatch(1, number, pairs))


def samples(mesh_world: world.World) -> dict[tuple[str, ...], float]:
    """Return the samples by the names and labels of the page, as Prometheus reads it."""

    class Collector:
        def collect(self) -> Any:
            return model_metrics.collect(mesh_world.mesh.view())

    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    page = prometheus_client.generate_latest(registry).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in parser.text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_a_model_s_figures_are_summed_over_workers(mesh_world: world.World) -> None:
    tell(mesh_world, "default-0", 1, m0=2)
    tell(mesh_world, "default-1", 1, m0=3)
    mesh_world.kill("default-0")
    shown = {key[0]: value for key, value in samples(mesh_world).items() if key[1:] == ("m0", "1")}
    assert {name.removeprefix("meshserve_model_"): value for name, value in shown.items()} == {
        "request_duration_seconds_count": 5,
        "request_duration_seconds_sum": pytest.approx(0.015),
        "request_bytes_total": 50,
        "answer_bytes_total": 100,
        "cold_calls_total": 2,
        "cold_wait_seconds_total": 4,
        "joined_rows_total": 8,
        "loads_total": 2,
        "load_seconds_total": 1,
        "evictions_total": 4,
        "in_flight": 0,
        "queued": 0,
    }
    page = samples(mesh_world)
    assert page["meshserve_model_failures_total", "424", "m0", "1"] == 2
    buckets = {
        float(key[1]): value
        for key, value in page.items()
        if key[0].endswith("_bucket") and key[2:] == ("m0", "1")
    }
    assert buckets == {
        bound: 5 if bound >= 0.003 else 0 for bound in (*model_figures.LATENCY_BOUNDS_S, math.inf)
    }


def test_waiting_requests_are_those_of_living_workers(mesh_world: world.World) -> None:
    tell(mesh_world, "default-0", 1, m0=1, m1=1, m2=1, m3=1)
    for worker, name, in_flight, queued in (("default-0", "m0", 3, 1), ("default-1", "m0", 2, 2)):
        busy = model_figures.BusyModel(model.ModelId(name), in_flight, queued)
        others = model_figures.BusyModel(model.ModelId("m9"), 7, 0)
        mesh_world.hear_report(worker, busy=(busy, others))
    page = samples(mesh_world)
    assert (
        page["meshserve_model_in_flight", "m0", "1"],
        page["meshserve_model_queued", "m0", "1"],
    ) == (5, 3)
    assert page["meshserve_model_in_flight", *model_metrics.REST] == 14
    mesh_world.kill("default-0")
    assert samples(mesh_world)["meshserve_model_in_flight", "m0", "1"] == 2


def test_series_are_bounded(mesh_world: world.World) -> None:
    tell(mesh_world, "default-0", 1, **{f"m{number}": 1 for number in range(10)})
    page = samples(mesh_world)
    assert len(page) <= SERIES_MAX * (PLACES + 1)
    counts = {
        key[1:]: value
        for key, value in page.items()
        if key[0] == "meshserve_model_request_duration_seconds_count"
    }
    assert counts == {("m0", "1"): 1, ("m1", "1"): 1, ("m2", "1"): 1, ("(others)", ""): 7}


def test_three_hundred_used_models_are_well_below_five_thousand_series() -> None:
    shown = desired.MetricsSettings().models_max
    # A worker has six more for each of its models: bytes, two outcomes, and three others.
    assert SERIES_MAX * (shown + 1) + 6 * 300 < 4500
