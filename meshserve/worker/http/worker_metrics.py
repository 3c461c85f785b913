"""A worker's metrics for Prometheus, made for each scrape: nothing here runs for a prediction."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from meshserve.core.memory import copy_lifecycle
from meshserve.core.values import model
from meshserve.protocol import http_protocol
from meshserve.worker.http import worker_app
from meshserve.worker.models import model_host, process_memory

MODELS_MAX = 200
"""Models of a worker with series of their own. `control/api/model_metrics.py` has those of all."""

CONTENT_TYPE = ((b"content-type", exposition.CONTENT_TYPE_PLAIN_0_0_4.encode()),)


class WorkerMetrics:
    """A Prometheus collector over one host."""

    def __init__(
        self, host: model_host.ModelHost, load: worker_app.WorkerLoad, worker_id: str
    ) -> None:
        self._host = host
        self._load = load
        self._worker = worker_id
        self._named: dict[model.ModelId, None] = {}

    def page(self) -> http_protocol.Answer:
        """Return the text that Prometheus scrapes."""
        # A registry for each scrape: prometheus_client's own one is shared by the whole process.
        # `auto_describe` would collect everything once more, to learn the names.
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return 200, CONTENT_TYPE, exposition.generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families (prometheus_client)."""
        yield from self._worker_metrics()
        yield from self._model_metrics()

    def _worker_metrics(self) -> Iterator[Metric]:
        counts = self._host.residency.counts
        for name, text, value in (
            ("requests", "Requests that were answered, well or not", self._load.requests),
            ("cache_hits", "Requests whose model was in memory", counts.hits),
            ("cache_misses", "Requests that waited for their model", counts.misses),
            ("loads", "Models that were loaded", counts.loads),
            ("load_failures", "Loads that failed", counts.load_failures),
            ("evictions", "Copies that left memory", counts.evictions),
        ):
            family = CounterMetricFamily(f"meshserve_{name}", text, labels=["worker"])
            family.add_metric([self._worker], value)
            yield family
        failures = CounterMetricFamily(
            "meshserve_request_failures",
            "Requests that were answered with an error",
            labels=["worker", "kind"],
        )
        for kind, value in self._load.failures_by_kind.items():
            failures.add_metric([self._worker, kind], value)
        yield failures
        yield self._latency()
        yield from self._memory()

    def _latency(self) -> Metric:
        bounds = (*map(str, worker_app.LATENCY_BOUNDS_S), "+Inf")
        total, buckets = 0, []
        for bound, count in zip(bounds, self._load.latency_counts, strict=True):
            # In Prometheus each bucket counts all that is below its bound.
            total += count
            buckets.append((bound, float(total)))
        family = HistogramMetricFamily(
            "meshserve_request_duration_seconds", "From arrival to answer", labels=["worker"]
        )
        family.add_metric([self._worker], buckets, self._load.latency_total_s)
        return family

    def _memory(self) -> Iterator[Metric]:
        account, effects = self._host.residency.account, self._host.effects
        booked = GaugeMetricFamily(
            "meshserve_booked_bytes", "Memory booked for models", labels=["worker", "device"]
        )
        budget = GaugeMetricFamily(
            "meshserve_budget_bytes", "Memory that may be booked", labels=["worker", "device"]
        )
        for family, footprint in ((booked, account.booked), (budget, account.budget)):
            family.add_metric([self._worker, "host"], footprint.host_bytes)
            family.add_metric([self._worker, "gpu"], footprint.gpu_bytes)
            yield family
        for name, text, size_bytes in (
            ("private", "Memory of the process that no file backs", process_memory.private_bytes()),
            (
                "mapped",
                "Weights in mapped files, which all workers of a node share",
                effects.memory.mapped_bytes,
            ),
            (
                "kept",
                "Memory for models that left and are quickly back",
                effects.detached_bytes,
            ),
        ):
            gauge = GaugeMetricFamily(f"meshserve_{name}_bytes", text, labels=["worker"])
            gauge.add_metric([self._worker], size_bytes)
            yield gauge

    def _model_metrics(self) -> Iterator[Metric]:
        labels = ["worker", "model", "version"]
        answered = CounterMetricFamily(
            "meshserve_model_requests",
            "Predictions by model and outcome",
            labels=[*labels, "outcome"],
        )
        seconds = CounterMetricFamily(
            "meshserve_model_compute_seconds", "Time that the model's code took", labels=labels
        )
        stopped = CounterMetricFamily(
            "meshserve_model_joins_stopped",
            "Copies whose requests are joined no more, since a joined run gave another answer",
            labels=labels,
        )
        for id_ in self._name_models():
            counts = self._host.stats[id_]
            stopped.add_metric([self._worker, *id_], counts.joins_stopped)
            names = [self._worker, *id_]
            answered.add_metric([*names, "success"], counts.success.count)
            answered.add_metric([*names, "failure"], counts.failure.count)
            seconds.add_metric(names, counts.computed.total_s)
        yield answered
        yield seconds
        yield stopped
        yield self._residents(labels)
        hung = GaugeMetricFamily(
            "meshserve_model_hung_runs",
            "Runs that go on in a thread long after their last caller has left",
            labels=labels,
        )
        for copy in self._host.trials.ailing.hung():
            for id_ in copy.ids:
                hung.add_metric([self._worker, *id_], copy.runs)
        yield hung

    def _residents(self, labels: list[str]) -> Metric:
        family = GaugeMetricFamily(
            "meshserve_model_bytes", "Memory booked for a model's copy", labels=[*labels, "device"]
        )
        biggest = heapq.nlargest(MODELS_MAX, self._booked(), key=lambda booked: sum(booked[1]))
        for id_, footprint in biggest:
            names = [self._worker, *id_]
            family.add_metric([*names, "host"], footprint.host_bytes)
            # Without a GPU each model would have a second line, of zero.
            if footprint.gpu_bytes:
                family.add_metric([*names, "gpu"], footprint.gpu_bytes)
        return family

    def _name_models(self) -> Iterable[model.ModelId]:
        """Return the models with series of their own: the first that were used and still exist."""
        stats = self._host.stats
        # A model that has series keeps them, or its counters would come and go.
        self._named = dict.fromkeys(id_ for id_ in self._named if id_ in stats)
        for id_ in stats:
            if len(self._named) >= MODELS_MAX:
                break
            self._named.setdefault(id_)
        return self._named

    def _booked(self) -> Iterator[tuple[model.ModelId, model.Footprint]]:
        for copy in self._host.residency.copies.values():
            if copy.state not in (copy_lifecycle.CopyPhase.ABSENT, copy_lifecycle.CopyPhase.FAILED):
                yield from ((id_, copy.booked) for id_ in copy.names)
