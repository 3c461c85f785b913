"""The environment variables of an engine's processes, as a function of what they shall run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from meshserve.core.interfaces import llm_engine

READY_MARGIN_S = 5
"""vLLM gives up a start this much before the server would: its own message says more."""

PAUSE = "MESHSERVE_ENGINE_PAUSE_S"
"""How long an engine's processes sleep each time they look whether another one is done. Unset: they look all the time, as vLLM does."""

PAUSE_S = 2e-5

SILENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def enforced(order: llm_engine.EngineOrder) -> dict[str, str]:
    """What holds whatever the environment says: nothing is told to anybody, and a model that is here is not looked for elsewhere."""
    offline = (
        {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        if Path(order.model_path).exists()
        else {}
    )
    return SILENT | offline


def defaults(
    order: llm_engine.EngineOrder, cores: Sequence[int], logging_config: str
) -> dict[str, str]:
    """What holds where the environment says nothing."""
    ready_s = max(1, math.floor(order.spec.start_timeout_s) - READY_MARGIN_S)
    told = {"VLLM_ENGINE_READY_TIMEOUT_S": str(ready_s), "VLLM_LOGGING_CONFIG_PATH": logging_config}
    if order.spec.device == "cpu":
        told[PAUSE] = str(PAUSE_S)
    processes = order.spec.tensor_parallel_size * order.spec.pipeline_parallel_size
    if order.spec.device == "cpu" and processes > 1:
        told["VLLM_CPU_OMP_THREADS_BIND"] = shares(cores, processes)
    return told


def shares(cores: Sequence[int], processes: int) -> str:
    """The cores in equal runs, one a process, in vLLM's words: `0,1|2,3`. vLLM itself wants a NUMA node for each.

    With fewer cores than processes several take the same one.
    """
    run = len(cores) // processes
    picked = (
        cores[index * run : (index + 1) * run] or [cores[index % len(cores)]]
        for index in range(processes)
    )
    return "|".join(",".join(str(core) for core in each) for each in picked)
