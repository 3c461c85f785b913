from __future__ import annotations

from typing import Any

import pytest

from meshserve.control import model_details
from meshserve.core.values import copy_details, model, reports
from tests.core import world

A = model.ModelId("a")
NOW_S = 1000.0


@pytest.fixture
def mesh_world() -> world.World:
    fresh = world.World()
    fresh.apply(
        pools=(world.pool(workers=2),),
        models=(world.spec("a", pinned=True, origin=model.FROM_CONFIG),),
    )
    return fresh


def shown(mesh_world: world.World, **by_worker: copy_details.CopyDetails) -> dict[str, Any]:
    copies = {
        worker_id: reports.CopyReport(A, "ready", details=details)
        for worker_id, details in by_worker.items()
    }
    view = mesh_world.mesh.view()
    return model_details.details(view, view.declared("a"), copies, NOW_S)


def test_without_a_copy_nothing_is_known_but_what_pins_it(mesh_world: world.World) -> None:
    assert shown(mesh_world) == {
        "inputs": [],
        "outputs": [],
        "footprint_from": "",
        "last_load": None,
        "last_departure": None,
        "load_failure": None,
        "last_error": None,
        "failed_requests": {},
        "slow": [],
        "pinned_by": "`pinned: true` of the configuration",
    }


def test_the_copy_loaded_last_is_shown(mesh_world: world.World) -> None:
    older = copy_details.CopyDetails("old", footprint_from="guess", load_s=1.0, loaded_ago_s=60.0)
    newer = copy_details.CopyDetails(
        "onnx",
        (model.TensorSpec("x", "FP32", (-1, 4)),),
        footprint_from="measured",
        load_s=0.5,
        loaded_ago_s=2.0,
    )
    details = shown(mesh_world, w0=older, w1=newer, w2=copy_details.CopyDetails())
    assert (details["runtime"], details["footprint_from"]) == ("onnx", "measured")
    assert details["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert details["last_load"] == {"at_s": 998.0, "took_s": 0.5}


def test_failures_of_all_workers_count(mesh_world: world.World) -> None:
    first = copy_details.CopyDetails(
        error="no such key", failures=1, retry_s=1.0, failed_requests={"ModelRaised": 2}
    )
    second = copy_details.CopyDetails(
        error="too big",
        failures=3,
        retry_s=4.0,
        failed_requests={"ModelRaised": 1, "Overloaded": 5},
        raised="ValueError: x",
        raised_ms=990_000,
    )
    details = shown(mesh_world, w0=first, w1=second)
    assert details["load_failure"] == {"error": "too big", "in_a_row": 3, "next_try_in_s": 4.0}
    assert details["failed_requests"] == {"ModelRaised": 3, "Overloaded": 5}
    assert details["last_error"] == {"at_s": 990.0, "error": "ValueError: x"}


def test_the_last_departure_of_any_worker_is_shown(mesh_world: world.World) -> None:
    details = [
        copy_details.CopyDetails(
            departure_kind="evicted", departure_reason=reason, departure_ago_s=ago_s
        )
        for reason, ago_s in (("for b", 50.0), ("for c", 5.0))
    ]
    last = shown(mesh_world, w0=details[0], w1=details[1])["last_departure"]
    assert last == {"at_s": 995.0, "kind": "evicted", "reason": "for c"}


def test_reasons_of_several_workers_have_their_names(mesh_world: world.World) -> None:
    slow = copy_details.CopyDetails(slow=("queue: 3 requests wait",))
    assert shown(mesh_world, w0=slow)["slow"] == ["queue: 3 requests wait"]
    assert shown(mesh_world, w0=slow, w1=copy_details.CopyDetails())["slow"] == [
        "w0: queue: 3 requests wait"
    ]
