"""The environment variables of vLLM's processes, computed from the order that they carry out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from meshserve.core.interfaces import llm_engine

READY_MARGIN_S = 5
"""vLLM times out a start this much earlier than the server, because its message says more."""

PAUSE = "MESHSERVE_ENGINE_PAUSE_S"
"""The variable with the seconds that vLLM's processes sleep between polls of each other.

Without it they spin.
"""

# Spinning took a core of its own, and 5.9 ms of CPU a token instead of 1.6.
PAUSE_S = 2e-5

NO_TELEMETRY = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def enforced(order: llm_engine.EngineOrder) -> dict[str, str]:
    """Return the variables that override the environment.

    No telemetry is sent, and nothing is downloaded for a model that is on this machine.
    """
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return NO_TELEMETRY | (offline if Path(order.model_path).exists() else {})


def defaults(
    order: llm_engine.EngineOrder, cores: Sequence[int], logging_config: str
) -> dict[str, str]:
    """Return the variables that apply unless the environment sets them.

    `cores` are the CPUs that this process may use, `logging_config` is a file for vLLM.
    """
    ready_s = max(1, math.floor(order.spec.start_timeout_s) - READY_MARGIN_S)
    variables = {
        "VLLM_ENGINE_READY_TIMEOUT_S": str(ready_s),
        "VLLM_LOGGING_CONFIG_PATH": logging_config,
    }
    if order.spec.device == "cpu":
        # See docs/decisions/0009-engine-pause-on-cpus.md.
        variables[PAUSE] = str(PAUSE_S)
    processes = order.spec.tensor_parallel_size * order.spec.pipeline_parallel_size
    if order.spec.device == "cpu" and processes > 1:
        variables["VLLM_CPU_OMP_THREADS_BIND"] = core_shares(cores, processes)
    return variables


def core_shares(cores: Sequence[int], processes: int) -> str:
    """Return an equal share of the cores for each process, in vLLM's syntax: `0,1|2,3`.

    By default vLLM requires a NUMA node for each process. With fewer cores than processes, several
    processes get the same core.
    """
    run = len(cores) // processes
    shares = (
        cores[index * run : (index + 1) * run] or [cores[index % len(cores)]]
        for index in range(processes)
    )
    return "|".join(",".join(map(str, share)) for share in shares)
