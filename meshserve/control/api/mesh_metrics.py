"""What the controller counts, in Prometheus' text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from meshserve.control import controller
from meshserve.control.api import llm_metrics
from meshserve.core.values import reports

STATES: tuple[reports.WorkerState, ...] = ("starting", "ready", "draining", "lost")


class MeshMetrics:
    """Collected from the controller's state when somebody asks."""

    def __init__(self, of: controller.Controller) -> None:
        self._controller = of
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """All metrics now."""
        return exposition.generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus' library asks for."""
        view = self._controller.view()
        yield GaugeMetricFamily(
            "meshserve_models_registered",
            "Registered versions of models.",
            value=len(view.models),
        )
        yield GaugeMetricFamily("meshserve_aliases", "Aliases.", value=len(view.aliases))
        yield self._workers()
        yield CounterMetricFamily(
            "meshserve_controller_restarts",
            "Restarts of the controller.",
            value=self._controller.restarts,
        )
        yield CounterMetricFamily(
            "meshserve_controller_events",
            "Events that the controller handled.",
            value=self._controller.events_handled,
        )
        yield CounterMetricFamily(
            "meshserve_controller_failures",
            "Events whose handling failed by a bug of the controller's.",
            value=self._controller.failures,
        )
        restarts = CounterMetricFamily(
            "meshserve_worker_restarts", "Restarts of workers after a loss.", labels=["worker"]
        )
        for worker in view.workers:
            restarts.add_metric([worker.id], worker.restarts)
        yield restarts
        copies = GaugeMetricFamily(
            "meshserve_model_workers",
            "Workers of a model that one is not enough for.",
            labels=["model"],
        )
        for route in view.hot_routes:
            copies.add_metric([route.name], len(route.worker_ids))
        yield copies
        yield from llm_metrics.families(view.llms)

    def _workers(self) -> Metric:
        family = GaugeMetricFamily(
            "meshserve_workers", "Workers by pool and state.", labels=["pool", "state"]
        )
        view = self._controller.view()
        for pool in view.config.pools:
            counts: Counter[str] = Counter(worker.state for worker in view.of_pool(pool.name))
            for state in STATES:
                family.add_metric([pool.name, state], counts[state])
        return family
