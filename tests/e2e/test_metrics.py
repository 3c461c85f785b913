"""The metrics of a real mesh."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from tests import support
from tests.e2e import asking, counting, running

pytestmark = pytest.mark.edge

ROWS = np.ones((2, 4), np.float32)
TOTALS = (
    *("request_duration_seconds_count", "request_duration_seconds_sum"),
    *("request_bytes_total", "answer_bytes_total", "failures_total"),
    *("loads_total", "load_seconds_total", "cold_calls_total", "cold_wait_seconds_total"),
)


def ask(client: Any, times: int = 1, name: str = "small") -> None:
    for _ in range(times):
        client.infer(name, [asking.over_grpc("x", ROWS, "FP32")])


def test_requests_hits_and_latency_are_counted(
    mesh: running.Mesh, over_grpc: tritonclient.grpc.InferenceServerClient
) -> None:
    ask(over_grpc)
    names = (
        "meshserve_requests_total",
        "meshserve_cache_hits_total",
        "meshserve_request_duration_seconds_count",
    )

    def now() -> Any:
        return {name: counting.total(mesh, name, worker="tight-0") for name in names}

    before = now()
    ask(over_grpc, 10)
    assert {name: value - before[name] for name, value in now().items()} == dict.fromkeys(names, 10)


def test_loads_misses_and_failures_are_counted(
    mesh: running.Mesh, over_grpc: tritonclient.grpc.InferenceServerClient
) -> None:
    names = ("meshserve_loads_total", "meshserve_cache_misses_total", "meshserve_evictions_total")
    ask(over_grpc)
    before = {name: counting.total(mesh, name, worker="tight-0") for name in names}
    mesh.http.post("/mesh/v1/models/small/unload").raise_for_status()
    ask(over_grpc)
    grown = {name: counting.total(mesh, name, worker="tight-0") - before[name] for name in names}
    assert grown == {
        "meshserve_loads_total": 1,
        "meshserve_cache_misses_total": 1,
        "meshserve_evictions_total": 0,
    }
    failures = counting.total(
        mesh, "meshserve_request_failures_total", worker="tight-0", kind="InvalidRequest"
    )
    with pytest.raises(InferenceServerException):
        over_grpc.infer("small", [asking.over_grpc("wrong", ROWS, "FP32")])
    assert (
        counting.total(
            mesh, "meshserve_request_failures_total", worker="tight-0", kind="InvalidRequest"
        )
        == failures + 1
    )


def test_models_have_requests_and_bytes(
    mesh: running.Mesh, over_grpc: tritonclient.grpc.InferenceServerClient
) -> None:
    labels = {"model": "small", "version": "1", "worker": "tight-0"}
    before = counting.total(mesh, "meshserve_model_requests_total", outcome="success", **labels)
    ask(over_grpc, 3)
    assert (
        counting.total(mesh, "meshserve_model_requests_total", outcome="success", **labels)
        == before + 3
    )
    assert counting.total(mesh, "meshserve_model_bytes", device="host", **labels) > 0
    assert counting.total(mesh, "meshserve_model_compute_seconds_total", **labels) > 0


def test_workers_have_a_budget_and_private_memory(mesh: running.Mesh) -> None:
    workers = {
        sample.labels["worker"] for sample in counting.samples(mesh, "meshserve_budget_bytes")
    }
    assert workers == {"default-0", "default-1", "tight-0"}
    for worker in workers:
        booked = counting.total(mesh, "meshserve_booked_bytes", worker=worker)
        assert 0 <= booked <= counting.total(mesh, "meshserve_budget_bytes", worker=worker)
        assert counting.total(mesh, "meshserve_private_bytes", worker=worker) > 0


def test_controller_and_gateway_have_metrics(mesh: running.Mesh) -> None:
    assert counting.total(mesh, "meshserve_models_registered") >= len(mesh.document["models"])
    assert counting.total(mesh, "meshserve_workers", state="ready") == 3
    assert [name for name in counting.families(mesh) if name.startswith("envoy_")]


def test_every_family_has_help_and_type(mesh: running.Mesh) -> None:
    by_name = counting.families(mesh)
    ours = {name: family for name, family in by_name.items() if name.startswith("meshserve_")}
    assert len(ours) > 15
    assert all(family.documentation and family.type != "unknown" for family in ours.values())


def of_model(mesh: running.Mesh, name: str, **labels: str) -> float:
    return counting.total(mesh, f"meshserve_model_{name}", model="small", **labels)


def requests(mesh: running.Mesh) -> float:
    return of_model(mesh, "request_duration_seconds_count")


def worker_pid(mesh: running.Mesh) -> int:
    worker = mesh.workers()["tight-0"]
    return int(worker["pid"]) if worker["state"] == "ready" else 0


def controller_pid(mesh: running.Mesh) -> int:
    status = mesh.status()
    return int(status["controller"]["pid"]) if status["state"] == "ready" else 0


def is_replaced(mesh: running.Mesh, process: Callable[[running.Mesh], int], pid: int) -> bool:
    """Return whether another process is in its place, and the page has all parts."""
    with contextlib.suppress(httpx.HTTPError, KeyError):
        return process(mesh) not in (0, pid) and requests(mesh) > 0
    return False


def test_a_model_s_figures_never_fall(
    mesh: running.Mesh, over_grpc: tritonclient.grpc.InferenceServerClient
) -> None:
    ask(over_grpc)
    support.wait_until(lambda: requests(mesh) >= 1)
    before = {name: of_model(mesh, name) for name in TOTALS}
    ask(over_grpc, 7)
    wrong = [asking.over_grpc("wrong", ROWS, "FP32")]
    with pytest.raises(InferenceServerException):
        over_grpc.infer("small", wrong)
    # The workers report once a second, and what they have not reported dies with them.
    support.wait_until(lambda: requests(mesh) >= before[TOTALS[0]] + 8, what="8 more are reported")
    after = {name: of_model(mesh, name) for name in TOTALS}
    assert after[TOTALS[0]] == before[TOTALS[0]] + 8
    assert after["failures_total"] == before["failures_total"] + 1
    assert all(after[name] > before[name] for name in TOTALS[:4])
    for process in (worker_pid, controller_pid):
        pid = process(mesh)
        os.kill(pid, signal.SIGKILL)
        has_successor = functools.partial(is_replaced, mesh, process, pid)
        support.wait_until(has_successor, 90, "its successor is there")
        now = {name: of_model(mesh, name) for name in TOTALS}
        assert all(now[name] >= after[name] for name in TOTALS), (after, now)
    ask(over_grpc, 5)
    support.wait_until(lambda: requests(mesh) >= after[TOTALS[0]] + 5, what="5 more are reported")
    assert requests(mesh) == after[TOTALS[0]] + 5
    assert of_model(mesh, "loads_total") == after["loads_total"] + 1
