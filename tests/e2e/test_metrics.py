"""The metrics of a real mesh."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from tests.e2e import asking, counting, running

pytestmark = pytest.mark.edge

ROWS = np.ones((2, 4), np.float32)


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
