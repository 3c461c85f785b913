from __future__ import annotations

from typing import Any

import prometheus_client
import pytest

from meshserve.llm import vllm_metrics


@pytest.fixture
def registry() -> prometheus_client.CollectorRegistry:
    return prometheus_client.CollectorRegistry()


@pytest.fixture
def engine(registry: prometheus_client.CollectorRegistry) -> dict[str, Any]:
    """vLLM's metrics, by its names and with its labels."""
    labels = ["model_name"]
    return {
        "running": prometheus_client.Gauge(
            "vllm:num_requests_running", "", labels, registry=registry
        ).labels("m"),
        "tokens": prometheus_client.Counter(
            "vllm:generation_tokens", "", labels, registry=registry
        ).labels("m"),
        "prompt": prometheus_client.Counter(
            "vllm:prompt_tokens", "", labels, registry=registry
        ).labels("m"),
        "kv": prometheus_client.Gauge(
            "vllm:kv_cache_usage_perc", "", labels, registry=registry
        ).labels("m"),
        "ttft": prometheus_client.Histogram(
            "vllm:time_to_first_token_seconds", "", labels, buckets=(0.1, 1.0), registry=registry
        ).labels("m"),
    }


def test_without_metrics_all_requests_wait(registry: prometheus_client.CollectorRegistry) -> None:
    assert vllm_metrics.counts(3, registry)[:4] == (0, 3, 0, 0.0)


def test_counts_follow_the_metrics(
    registry: prometheus_client.CollectorRegistry, engine: dict[str, Any]
) -> None:
    engine["running"].set(2)
    engine["tokens"].inc(7)
    engine["kv"].set(0.25)
    engine["ttft"].observe(0.05)
    engine["ttft"].observe(0.5)
    counts = vllm_metrics.counts(5, registry)
    assert counts[:4] == (2, 3, 7, 0.25)
    assert counts.ttft == ((0.1, 1), (1.0, 2), (float("inf"), 2))


def test_running_requests_are_bounded_by_unfinished_ones(
    registry: prometheus_client.CollectorRegistry, engine: dict[str, Any]
) -> None:
    engine["running"].set(2)
    assert vllm_metrics.counts(0, registry)[:2] == (0, 0)


@pytest.mark.parametrize("name", ["running", "tokens", "prompt", "kv"])
def test_everything_that_a_step_changes_is_progress(
    registry: prometheus_client.CollectorRegistry, engine: dict[str, Any], name: str
) -> None:
    before = vllm_metrics.counts(1, registry).progress
    assert vllm_metrics.counts(1, registry).progress == before
    engine[name].inc()
    assert vllm_metrics.counts(1, registry).progress != before
