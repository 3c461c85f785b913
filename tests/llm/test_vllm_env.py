from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec
from meshserve.llm import vllm_engine, vllm_env


def order(path: str = "/nowhere", **spec: Any) -> llm_engine.EngineOrder:
    return llm_engine.EngineOrder(llm_spec.LlmSpec("m", path, **spec), path)


def test_no_telemetry_is_sent() -> None:
    assert vllm_env.enforced(order())["VLLM_NO_USAGE_STATS"] == "1"


def test_nothing_is_downloaded_for_a_local_model(tmp_path: Path) -> None:
    assert vllm_env.enforced(order(str(tmp_path)))["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in vllm_env.enforced(order("company/model"))


def test_vllm_gives_up_before_the_server_does() -> None:
    variables = vllm_env.defaults(order(start_timeout_s=100.0), [0, 1], "/log")
    assert variables == {"VLLM_ENGINE_READY_TIMEOUT_S": "95", "VLLM_LOGGING_CONFIG_PATH": "/log"}


def test_on_a_cpu_waiting_processes_sleep() -> None:
    assert float(vllm_env.defaults(order(device="cpu"), [0, 1], "")[vllm_env.PAUSE]) > 0
    (plugin,) = (
        point
        for point in metadata.entry_points(group="vllm.general_plugins")
        if point.name == "meshserve"
    )
    assert plugin.load() is vllm_engine.pause_while_waiting


def test_processes_on_a_cpu_get_their_own_cores() -> None:
    spec: dict[str, Any] = {"device": "cpu", "tensor_parallel_size": 2}
    assert vllm_env.defaults(order(**spec), [0, 1], "")["VLLM_CPU_OMP_THREADS_BIND"] == "0|1"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in vllm_env.defaults(
        order(tensor_parallel_size=2), [0, 1], ""
    )


@pytest.mark.parametrize(
    ("cores", "processes", "bound"),
    [
        ([0, 1], 2, "0|1"),
        ([2, 3, 6, 7], 2, "2,3|6,7"),
        ([0, 1, 2], 2, "0|1"),
        ([5], 2, "5|5"),
        ([0, 1], 3, "0|1|0"),
    ],
)
def test_cores_are_divided_into_equal_runs(cores: list[int], processes: int, bound: str) -> None:
    assert vllm_env.core_shares(cores, processes) == bound
