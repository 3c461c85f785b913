"""The controller's own metrics in Prometheus' text format.

Metrics of workers and engines are not among them: every process serves its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from meshserve.control import controller
from meshserve.core.mesh import mesh_view
from meshserve.core.values import llm_spec, reports

WORKER_STATES: tuple[reports.WorkerState, ...] = ("starting", "ready", "draining", "lost")
REPLICA_STATES: tuple[llm_spec.ReplicaState, ...] = (
    "ready",
    "starting",
    "asleep",
    "draining",
    "failed",
)
LLM_STATES = (*REPLICA_STATES, "idle")

Llms = tuple[mesh_view.LlmView, ...]
Labelled = Iterable[tuple[list[str], float]]


class MeshMetrics:
    """Collects the metrics from the controller's state when they are asked for."""

    def __init__(self, source: controller.Controller) -> None:
        self._controller = source
        # Not the default registry, which would add the metrics of this Python process.
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """Return all metrics as they are now."""
        return exposition.generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every family; Prometheus' library calls this."""
        view = self._controller.view()
        yield GaugeMetricFamily(
            "meshserve_models_registered",
            "Registered versions of models.",
            value=len(view.models),
        )
        yield GaugeMetricFamily("meshserve_aliases", "Aliases.", value=len(view.aliases))
        yield _workers(view)
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
        yield _labelled(
            CounterMetricFamily(
                "meshserve_worker_restarts", "Restarts of workers after a loss.", labels=["worker"]
            ),
            (([worker.id], worker.restarts) for worker in view.workers),
        )
        yield _labelled(
            GaugeMetricFamily(
                "meshserve_model_workers",
                "Workers of a model that one is not enough for.",
                labels=["model"],
            ),
            (([route.name], len(route.worker_ids)) for route in view.hot_routes),
        )
        yield from _llm_families(view.llms)


def _labelled(
    family: GaugeMetricFamily | CounterMetricFamily, samples: Labelled
) -> GaugeMetricFamily | CounterMetricFamily:
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _workers(view: mesh_view.MeshView) -> Metric:
    family = GaugeMetricFamily(
        "meshserve_workers", "Workers by pool and state.", labels=["pool", "state"]
    )
    for pool in view.config.pools:
        counts: Counter[str] = Counter(worker.state for worker in view.of_pool(pool.name))
        for state in WORKER_STATES:
            family.add_metric([pool.name, state], counts[state])
    return family


def _llm_families(llms: Llms) -> Iterator[Metric]:
    yield _llm_states(llms)
    yield _llm_replicas(llms)
    yield _labelled(
        GaugeMetricFamily(
            "meshserve_llm_held_requests", "Requests that wait for an engine.", labels=["llm"]
        ),
        (([llm.name], llm.held_requests) for llm in llms),
    )
    yield _labelled(
        GaugeMetricFamily(
            "meshserve_llm_held_bytes", "Bytes of requests that wait for an engine.", labels=["llm"]
        ),
        (([llm.name], llm.held_bytes) for llm in llms),
    )
    yield _labelled(
        CounterMetricFamily(
            "meshserve_llm_turned_away", "Requests that might not wait any longer.", labels=["llm"]
        ),
        (([llm.name], llm.turned_away) for llm in llms),
    )
    yield from _durations("start", "Starts", {llm.name: llm.starts for llm in llms})
    yield from _durations("wake", "Wakes", {llm.name: llm.wakes for llm in llms})


def _llm_states(llms: Llms) -> Metric:
    return _labelled(
        GaugeMetricFamily(
            "meshserve_llm_state", "1 for the state that the LLM is in.", labels=["llm", "state"]
        ),
        (([llm.name, state], llm.state == state) for llm in llms for state in LLM_STATES),
    )


def _llm_replicas(llms: Llms) -> Metric:
    family = GaugeMetricFamily(
        "meshserve_llm_replicas", "Replicas of LLMs by state.", labels=["llm", "state"]
    )
    for llm in llms:
        counts = Counter(replica.state for replica in llm.replicas)
        for state in REPLICA_STATES:
            family.add_metric([llm.name, state], counts[state])
    return family


def _durations(
    word: str, title: str, durations: Mapping[str, mesh_view.DurationView]
) -> Iterator[Metric]:
    text = f"{title} of engines that succeeded"
    count = CounterMetricFamily(f"meshserve_llm_{word}s", f"{text}.", labels=["llm"])
    seconds = SummaryMetricFamily(
        f"meshserve_llm_{word}_seconds", f"{text}, and how long they took.", labels=["llm"]
    )
    for name, duration in durations.items():
        count.add_metric([name], duration.count)
        seconds.add_metric([name], duration.count, duration.total_s)
    yield from (count, seconds)
