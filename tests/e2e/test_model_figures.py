"""The figures of 300 used models of a mesh, whose worker and controller are killed."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests import support
from tests.e2e import counting, running, zoo

pytestmark = [pytest.mark.edge, pytest.mark.slow]

USED = 300
SERIES_MAX = 5000
BODY = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
WRONG = {"inputs": [{"name": "no", "shape": [1], "datatype": "FP32", "data": [1]}]}
TOTALS = (
    *("request_duration_seconds_count", "request_duration_seconds_sum"),
    *("request_bytes_total", "answer_bytes_total", "failures_total", "cold_calls_total"),
    *("cold_wait_seconds_total", "loads_total", "load_seconds_total"),
)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Mesh]:
    """A mesh of one worker whose models have the same bytes, and so one copy."""
    path = tmp_path_factory.mktemp("counted") / "small.onnx"
    zoo.write_onnx(path, 7)
    models = [{"name": f"m{number}", "uri": str(path)} for number in range(USED)]
    pools = {"default": {"workers": 1, "memory": "1GiB"}}
    with running.mesh({"pools": pools, "models": models}) as started:
        yield started


def ask(mesh: running.Mesh, name: str) -> None:
    mesh.http.post(f"/v2/models/{name}/infer", json=BODY).raise_for_status()


def figures(mesh: running.Mesh, name: str = "m0") -> dict[str, float]:
    """Return the totals of one model."""
    families = counting.families(mesh).values()
    samples = [sample for family in families for sample in family.samples]
    return {
        total: sum(
            sample.value
            for sample in samples
            if sample.name == f"meshserve_model_{total}" and sample.labels.get("model") == name
        )
        for total in TOTALS
    }


def worker_pid(mesh: running.Mesh) -> int:
    worker = mesh.workers()["default-0"]
    return int(worker["pid"]) if worker["state"] == "ready" else 0


def controller_pid(mesh: running.Mesh) -> int:
    status = mesh.status()
    return int(status["controller"]["pid"]) if status["state"] == "ready" else 0


def is_replaced(mesh: running.Mesh, process: Callable[[running.Mesh], int], pid: int) -> bool:
    """Return whether another process has taken its place, and the page has the figures."""
    with contextlib.suppress(httpx.HTTPError, KeyError):
        return process(mesh) not in (0, pid) and figures(mesh)[TOTALS[0]] > 0
    return False


def wait_for_requests(mesh: running.Mesh, name: str, count: int) -> dict[str, float]:
    """Return the figures once a report has brought so many requests."""
    support.wait_until(lambda: figures(mesh, name)[TOTALS[0]] >= count, what=f"{count} reported")
    return figures(mesh, name)


def test_figures_of_a_model_never_fall(counted: running.Mesh) -> None:
    for _ in range(7):
        ask(counted, "m0")
    assert counted.http.post("/v2/models/m0/infer", json=WRONG).status_code == 400
    after = wait_for_requests(counted, "m0", 8)
    shown = {name: after[f"{name}_total"] for name in ("failures", "loads", "cold_calls")}
    assert (after[TOTALS[0]], shown) == (8, {"failures": 1, "loads": 1, "cold_calls": 1})
    assert all(after.values())
    for process in (worker_pid, controller_pid):
        pid = process(counted)
        os.kill(pid, signal.SIGKILL)
        has_successor = functools.partial(is_replaced, counted, process, pid)
        support.wait_until(has_successor, 90, "its successor serves")
        assert figures(counted) == after
    ask(counted, "m0")
    assert wait_for_requests(counted, "m0", 9)["loads_total"] == 2


def test_three_hundred_used_models_have_few_series(counted: running.Mesh) -> None:
    for number in range(USED):
        ask(counted, f"m{number}")
    others = wait_for_requests(counted, "(others)", USED - 100)
    assert others[TOTALS[0]] == USED - 100
    page = counted.http.get("/metrics").raise_for_status().text
    series = [line for line in page.splitlines() if line and not line.startswith("#")]
    assert len(series) <= SERIES_MAX
    assert sum("meshserve_model_" in line for line in series) <= SERIES_MAX - 500
