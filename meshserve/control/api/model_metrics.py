"""The figures of models over all workers, as metrics for Prometheus: docs/metrics.md has each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from meshserve.core.mesh import mesh_view
from meshserve.core.values import model, model_figures

REST = model.ModelId("(others)", "")
"""The labels of all models without series of their own. The version of no model is empty."""

LABELS = ("model", "version")

COUNTERS = {
    "request_bytes": "Bytes of the bodies of predictions' requests.",
    "answer_bytes": "Bytes of the bodies of predictions' answers.",
    "cold_calls": "Predictions that waited for their model to load.",
    "cold_wait_seconds": "Time that predictions waited for their model to load.",
    "joined_rows": "Rows that were answered by runs of several requests.",
    "loads": "Loads; one that several models waited for counts for each.",
    "load_seconds": "Time that loads took.",
    "evictions": "Times that the model left a worker's memory to make room, or was idle for long.",
}


def collect(view: mesh_view.MeshView) -> Iterator[Metric]:
    """Yield the families of all shown models, and of the rest as one."""
    totals = {**view.totals.shown, REST: view.totals.rest}
    yield _durations(totals)
    yield _failures(totals)
    for name, text in COUNTERS.items():
        counter = CounterMetricFamily(f"meshserve_model_{name}", text, labels=LABELS)
        for id_, figures in totals.items():
            counter.add_metric(id_, _value(name, figures))
        yield counter
    yield from _waiting(view, totals)


def _value(name: str, figures: model_figures.ModelFigures) -> float:
    match name:
        case "cold_wait_seconds":
            return figures.cold_s
        case "load_seconds":
            return figures.load_s
        case _:
            return float(getattr(figures, name))


def _durations(totals: dict[model.ModelId, model_figures.ModelFigures]) -> Metric:
    family = HistogramMetricFamily(
        "meshserve_model_request_duration_seconds",
        "From a prediction's arrival at a worker to its answer, errors too.",
        labels=LABELS,
    )
    bounds = (*map(str, model_figures.LATENCY_BOUNDS_S), "+Inf")
    for id_, figures in totals.items():
        below, buckets = 0, []
        for bound, count in zip(bounds, figures.latency_counts, strict=True):
            # In Prometheus each bucket counts all that is below its bound.
            below += count
            buckets.append((bound, float(below)))
        family.add_metric(id_, buckets, figures.latency_s)
    return family


def _failures(totals: dict[model.ModelId, model_figures.ModelFigures]) -> Metric:
    family = CounterMetricFamily(
        "meshserve_model_failures",
        "Predictions that were answered with an error, by HTTP status; 499: the caller left.",
        labels=(*LABELS, "code"),
    )
    for id_, figures in totals.items():
        for code, count in sorted(figures.failures.items()):
            family.add_metric((*id_, str(code)), count)
    return family


def _waiting(
    view: mesh_view.MeshView, totals: dict[model.ModelId, model_figures.ModelFigures]
) -> Iterator[Metric]:
    in_flight: Counter[model.ModelId] = Counter()
    queued: Counter[model.ModelId] = Counter()
    # Of living workers alone: what a dead one had in flight was answered elsewhere.
    for worker in view.workers:
        for busy in worker.report.busy if worker.report else ():
            id_ = busy.id if busy.id in totals else REST
            in_flight[id_] += busy.in_flight
            queued[id_] += busy.queued
    for name, text, counts in (
        ("in_flight", "Predictions that wait for their answer, a second ago at most.", in_flight),
        ("queued", "Those of them that wait for a load or for their turn.", queued),
    ):
        gauge = GaugeMetricFamily(f"meshserve_model_{name}", text, labels=LABELS)
        for id_ in totals:
            gauge.add_metric(id_, counts[id_])
        yield gauge
