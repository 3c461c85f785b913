"""vLLM's own Prometheus metrics of this process, as counts. Only what is needed is collected: it is asked ten times a second."""

from __future__ import annotations

from collections import defaultdict

import prometheus_client

from meshserve.core.interfaces import llm_engine

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
TOKENS = "vllm:generation_tokens_total"
PROMPT_TOKENS = "vllm:prompt_tokens_total"
DONE = "vllm:request_success_total"
KV_USED = "vllm:kv_cache_usage_perc"
TTFT = "vllm:time_to_first_token_seconds_bucket"
NAMES = (RUNNING, WAITING, TOKENS, PROMPT_TOKENS, DONE, KV_USED, TTFT)


def counts(
    unfinished: int, registry: prometheus_client.CollectorRegistry = prometheus_client.REGISTRY
) -> llm_engine.EngineCounts:
    """How the engine of this process is, of which this process awaits so many requests.

    The engine tells of itself with every step. One that stands still tells nothing: then the last that it said of `running` stays, and
    what came since is waiting. `progress` has all that a step can change, so that a long prompt on its way in counts as progress too.
    """
    totals, ttft = _collected(registry)
    running = min(int(totals[RUNNING]), unfinished)
    return llm_engine.EngineCounts(
        running=running,
        waiting=unfinished - running,
        tokens=int(totals[TOKENS]),
        kv_used=totals[KV_USED],
        ttft=ttft,
        progress=tuple(totals[name] for name in NAMES[:-1]),
    )


def _collected(
    registry: prometheus_client.CollectorRegistry,
) -> tuple[dict[str, float], tuple[tuple[float, int], ...]]:
    totals: dict[str, float] = defaultdict(float)
    ttft: dict[float, int] = defaultdict(int)
    for family in registry.restricted_registry(NAMES).collect():
        for sample in family.samples:
            if sample.name == TTFT:
                ttft[float(sample.labels["le"])] += int(sample.value)
            else:
                totals[sample.name] += sample.value
    return totals, tuple(sorted(ttft.items()))
