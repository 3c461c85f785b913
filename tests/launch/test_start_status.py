from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from meshserve.launch import start_status
from meshserve.protocol import mesh_status

StartProgress = start_status.StartProgress


def part(state: str = "ready", reason: str = "", **fields: Any) -> dict[str, Any]:
    return {"state": state, "reason": reason, **fields}


def status(
    workers: Sequence[dict[str, Any]] = (),
    gateways: Sequence[dict[str, Any]] = (),
    registered: int = 0,
    llms: Sequence[dict[str, Any]] = (),
    nodes: int = 0,
) -> mesh_status.MeshStatus:
    """Return as much of a status as the functions read."""
    content = {
        "pools": [{"workers": list(workers)}],
        "gateways": list(gateways),
        "models": {"registered": registered},
        "llms": list(llms),
        "nodes": [{}] * nodes,
    }
    return cast("mesh_status.MeshStatus", content)


def test_progress_counts_ready_parts() -> None:
    workers = [part(id="default-0"), part("starting", id="default-1")]
    assert start_status.progress(status(workers, [part("starting")], 3)) == [
        StartProgress("controller", 1, 1),
        StartProgress("workers", 1, 2),
        StartProgress("gateway", 0, 1),
        StartProgress("models", 3, 3),
    ]


def test_progress_counts_llms_that_always_run() -> None:
    llms = [part(replicas_min=1), part("starting", replicas_min=2), part("idle", replicas_min=0)]
    last = start_status.progress(status(llms=llms))[-1]
    assert last == StartProgress("llms", 1, 2, "1 on demand")


def test_one_gateway_is_expected_before_the_first_is_known() -> None:
    assert StartProgress("gateway", 0, 1) in start_status.progress(status())


def test_failures_name_the_parts_that_are_not_ready() -> None:
    workers = [part(id="default-0"), part("lost", "no memory", id="default-1")]
    assert (
        start_status.failures(status(workers, [part("starting")]))
        == "; default-1: no memory; gateway: starting; 1 of 2 workers are ready"
    )


def test_labels_that_no_node_has_are_the_reason_why_there_is_no_gateway() -> None:
    said = start_status.failures(status([part(id="default-0")], nodes=3))
    assert said == (
        "; gateway: none of the 3 nodes has the labels of gateway.placement"
        "; 1 of 1 workers are ready"
    )


def test_without_a_status_the_controller_is_the_failure() -> None:
    assert start_status.failures(None) == ": the controller does not answer"


def test_llms_on_demand_are_not_starting() -> None:
    llms = [
        part(name="a", replicas_min=1),
        part("failed", name="b", replicas_min=1),
        part("idle", name="c", replicas_min=0),
    ]
    assert start_status.starting_llms(status(llms=llms)) == ["b"]
