"""What the controller knows of LLMs, as metrics. What their engines count, the gateways tell beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from meshserve.core.llm import llm_state
from meshserve.core.values import llm_spec

REPLICA_STATES: tuple[llm_spec.ReplicaState, ...] = (
    "ready",
    "starting",
    "asleep",
    "draining",
    "failed",
)
STATES = (*REPLICA_STATES, "idle")

Llms = Mapping[str, llm_state.LlmRecord]


def families(llms: Llms) -> Iterator[Metric]:
    """Everything, labelled with the LLM's name."""
    yield _states(llms)
    yield _replicas(llms)
    held = GaugeMetricFamily(
        "meshserve_llm_held_requests", "Requests that wait for an engine.", labels=["llm"]
    )
    held_bytes = GaugeMetricFamily(
        "meshserve_llm_held_bytes", "Bytes of requests that wait for an engine.", labels=["llm"]
    )
    refused = CounterMetricFamily(
        "meshserve_llm_turned_away", "Requests that might not wait any longer.", labels=["llm"]
    )
    for name, each in llms.items():
        held.add_metric([name], len(each.held))
        held_bytes.add_metric([name], each.held.size_bytes)
        refused.add_metric([name], each.turned_away)
    yield from (held, held_bytes, refused)
    yield from _paces(
        "start", "Starts of engines", {name: each.starts for name, each in llms.items()}
    )
    yield from _paces("wake", "Wakes of engines", {name: each.wakes for name, each in llms.items()})


def _states(llms: Llms) -> Metric:
    family = GaugeMetricFamily(
        "meshserve_llm_state", "1 for the state that the LLM is in.", labels=["llm", "state"]
    )
    for name, each in llms.items():
        for state in STATES:
            family.add_metric([name, state], each.state == state)
    return family


def _replicas(llms: Llms) -> Metric:
    family = GaugeMetricFamily(
        "meshserve_llm_replicas", "Replicas of LLMs by state.", labels=["llm", "state"]
    )
    for name, each in llms.items():
        counts = Counter(replica.public_state for replica in each.replicas.values())
        for state in REPLICA_STATES:
            family.add_metric([name, state], counts[state])
    return family


def _paces(
    word: str, what: str, paces: Mapping[str, llm_state.DurationEstimate]
) -> Iterator[Metric]:
    count = CounterMetricFamily(f"meshserve_llm_{word}s", f"{what} that succeeded.", labels=["llm"])
    seconds = SummaryMetricFamily(
        f"meshserve_llm_{word}_seconds",
        f"{what} that succeeded, and how long they took.",
        labels=["llm"],
    )
    for name, pace in paces.items():
        count.add_metric([name], pace.stat.count)
        seconds.add_metric([name], pace.stat.count, pace.stat.total_s)
    yield from (count, seconds)
