"""The controller's own metrics in Prometheus' text format.

Workers and engines serve their own metrics, which are not repeated here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from meshserve.control import controller, figures_file
from meshserve.control.api import model_metrics
from meshserve.core.mesh import mesh_view
from meshserve.core.values import llm_spec, reports

# Taken from the types, so that no state can be forgotten here.
WORKER_STATES: tuple[reports.WorkerState, ...] = get_args(reports.WorkerState)
REPLICA_STATES: tuple[llm_spec.ReplicaState, ...] = get_args(llm_spec.ReplicaState)
LLM_STATES = (*REPLICA_STATES, "idle")

Llms = tuple[mesh_view.LlmView, ...]
Samples = Iterable[tuple[Sequence[str], float]]
"""Pairs of label values and the metric's value for them."""


class MeshMetrics:
    """Collects the metrics from the controller's state at each scrape."""

    def __init__(self, source: controller.Controller, figures: figures_file.FiguresFile) -> None:
        """`figures` keeps the totals of models that are shown."""
        self._controller = source
        self._figures = figures
        # Not the default registry, which would add the metrics of this Python process. Without
        # `auto_describe`, which would collect everything once more.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return all metrics as they are now."""
        # Before they are shown: a later controller must not show less.
        self._figures.write(self._controller.view().totals.saved)
        return exposition.generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every family; Prometheus' library calls this."""
        source, view = self._controller, self._controller.view()
        yield _gauge("models_registered", "Registered versions of models.", len(view.models))
        yield _gauge("aliases", "Aliases.", len(view.aliases))
        yield _gauge("workers", "Workers by pool and state.", _workers(view), ("pool", "state"))
        yield from _pool_families(view.pools)
        yield _counter("controller_restarts", "Restarts of the controller.", source.restarts)
        yield _counter(
            "controller_events", "Events that the controller handled.", source.events_handled
        )
        yield _counter(
            "controller_failures",
            "Events whose handling failed by a bug of the controller's.",
            source.failures,
        )
        restarts = [((worker.id,), worker.restarts) for worker in view.workers]
        yield _counter(
            "worker_restarts", "Restarts of workers after a loss.", restarts, ("worker",)
        )
        shared = [((route.name,), len(route.worker_ids)) for route in view.hot_routes]
        yield _gauge(
            "model_workers", "Workers of a model that one is not enough for.", shared, ("model",)
        )
        held = [((id_.name, id_.version), 1.0) for id_, _ in view.quarantined()]
        yield _gauge(
            "model_quarantined",
            "1 for a model that is not run because it has ended processes.",
            held,
            ("model", "version"),
        )
        yield from model_metrics.collect(view)
        yield from _llm_families(view.llms)


def _gauge(name: str, text: str, samples: Samples | float, labels: Sequence[str] = ()) -> Metric:
    return _filled(GaugeMetricFamily(f"meshserve_{name}", text, labels=labels), samples)


def _counter(name: str, text: str, samples: Samples | float, labels: Sequence[str] = ()) -> Metric:
    return _filled(CounterMetricFamily(f"meshserve_{name}", text, labels=labels), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples | float) -> Metric:
    """Return the family with its samples; a number is the one sample of a family without labels."""
    for labels, value in [((), samples)] if isinstance(samples, int | float) else samples:
        family.add_metric(labels, value)
    return family


def _workers(view: mesh_view.MeshView) -> Samples:
    for pool in view.config.pools:
        counts: Counter[str] = Counter(worker.state for worker in view.of_pool(pool.name))
        # Also the states that no worker is in: an alert can't see a series that is missing.
        yield from (((pool.name, state), counts[state]) for state in WORKER_STATES)


def _pool_families(pools: Mapping[str, mesh_view.PoolView]) -> Iterator[Metric]:
    wanted = [((name,), pool.workers_wanted) for name, pool in pools.items()]
    yield _gauge("pool_workers_wanted", "Workers that a pool should have now.", wanted, ("pool",))
    changes = [((name,), pool.changes) for name, pool in pools.items()]
    yield _counter("pool_size_changes", "Changes of that number by load.", changes, ("pool",))
    reasons = [((name, pool.reason), 1.0) for name, pool in pools.items() if pool.reason]
    yield _gauge(
        "pool_size_reason", "1 for the reason of the last change.", reasons, ("pool", "reason")
    )
    held = [((name,), pool.held_requests) for name, pool in pools.items()]
    yield _gauge("pool_held_requests", "Requests that wait for a worker.", held, ("pool",))


def _llm_families(llms: Llms) -> Iterator[Metric]:
    yield _gauge(
        "llm_state",
        "1 for the state that the LLM is in.",
        (((llm.name, state), llm.state == state) for llm in llms for state in LLM_STATES),
        ("llm", "state"),
    )
    yield _gauge("llm_replicas", "Replicas of LLMs by state.", _replicas(llms), ("llm", "state"))
    held = [((llm.name,), llm.held_requests) for llm in llms]
    yield _gauge("llm_held_requests", "Requests that wait for an engine.", held, ("llm",))
    held_bytes = [((llm.name,), llm.held_bytes) for llm in llms]
    yield _gauge(
        "llm_held_bytes", "Bytes of requests that wait for an engine.", held_bytes, ("llm",)
    )
    turned_away = [((llm.name,), llm.turned_away) for llm in llms]
    yield _counter(
        "llm_turned_away", "Requests that might not wait any longer.", turned_away, ("llm",)
    )
    yield from _durations("start", "Starts", {llm.name: llm.starts for llm in llms})
    yield from _durations("wake", "Wakes", {llm.name: llm.wakes for llm in llms})


def _replicas(llms: Llms) -> Samples:
    for llm in llms:
        counts = Counter(replica.state for replica in llm.replicas)
        yield from (((llm.name, state), counts[state]) for state in REPLICA_STATES)


def _durations(
    word: str, title: str, durations: Mapping[str, mesh_view.DurationView]
) -> Iterator[Metric]:
    text = f"{title} of engines that succeeded"
    counts = (((name,), duration.count) for name, duration in durations.items())
    yield _counter(f"llm_{word}s", f"{text}.", counts, ("llm",))
    seconds = SummaryMetricFamily(
        f"meshserve_llm_{word}_seconds", f"{text}, and how long they took.", labels=["llm"]
    )
    for name, duration in durations.items():
        seconds.add_metric([name], duration.count, duration.total_s)
    yield seconds
