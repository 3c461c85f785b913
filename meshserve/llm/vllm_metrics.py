"""Read the counts of vLLM's engine from the Prometheus metrics that it keeps in this process."""

from __future__ import annotations

from collections import defaultdict

import prometheus_client

from meshserve.core.interfaces import llm_engine

RUNNING = "vllm:num_requests_running"
TOKENS = "vllm:generation_tokens_total"
KV_USED = "vllm:kv_cache_usage_perc"
TTFT = "vllm:time_to_first_token_seconds_bucket"
# All metrics that a step can change. Prompt tokens count too: reading a long prompt is progress.
PROGRESS = (
    RUNNING,
    "vllm:num_requests_waiting",
    TOKENS,
    "vllm:prompt_tokens_total",
    "vllm:request_success_total",
    KV_USED,
)


def counts(
    unfinished: int, registry: prometheus_client.CollectorRegistry = prometheus_client.REGISTRY
) -> llm_engine.EngineCounts:
    """Return the counts of this process's engine, which has `unfinished` requests.

    vLLM updates its metrics with every step. If its core hangs, `running` keeps its last value,
    bounded by `unfinished`, and the requests that came since count as waiting.
    """
    totals, ttft = _collect(registry)
    running = min(int(totals[RUNNING]), unfinished)
    return llm_engine.EngineCounts(
        running=running,
        waiting=unfinished - running,
        tokens=int(totals[TOKENS]),
        kv_used=totals[KV_USED],
        ttft=ttft,
        progress=tuple(totals[name] for name in PROGRESS),
    )


def _collect(
    registry: prometheus_client.CollectorRegistry,
) -> tuple[dict[str, float], tuple[tuple[float, int], ...]]:
    totals: dict[str, float] = defaultdict(float)
    ttft: dict[float, int] = defaultdict(int)
    # Only these names: the counts are read ten times a second, and vLLM has hundreds of metrics.
    for family in registry.restricted_registry((*PROGRESS, TTFT)).collect():
        for sample in family.samples:
            if sample.name == TTFT:
                ttft[float(sample.labels["le"])] += int(sample.value)
            else:
                totals[sample.name] += sample.value
    return totals, tuple(sorted(ttft.items()))
