"""What `/mesh/v1/status` tells about a mesh that is starting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshserve.protocol import mesh_status


@dataclass(frozen=True, slots=True)
class StartProgress:
    """How much of one step of a start is done.

    Steps are ray, controller, workers, gateway, models and llms.
    """

    step: str
    done: int
    total: int
    detail: str = ""


def progress(status: mesh_status.MeshStatus) -> list[StartProgress]:
    """Return the progress of every step that the controller knows of."""
    workers = [worker for pool in status["pools"] for worker in pool["workers"]]
    gateways = status["gateways"]
    models = status["models"]["registered"]
    return [
        StartProgress("controller", 1, 1),
        StartProgress("workers", _count_ready(workers), len(workers)),
        # Before the controller knows its nodes it has no gateway, and still needs one.
        StartProgress("gateway", _count_ready(gateways), max(1, len(gateways))),
        StartProgress("models", models, models),
        *([_llm_progress(status["llms"])] if status["llms"] else []),
    ]


def _llm_progress(llms: list[mesh_status.LlmStatus]) -> StartProgress:
    permanent = [llm for llm in llms if llm["replicas_min"]]
    on_demand = len(llms) - len(permanent)
    detail = f"{on_demand} on demand" if on_demand else ""
    return StartProgress("llms", _count_ready(permanent), len(permanent), detail)


def _count_ready(parts: Sequence[Mapping[str, Any]]) -> int:
    return sum(part["state"] == "ready" for part in parts)


def starting_llms(status: mesh_status.MeshStatus) -> list[str]:
    """Return the names of the LLMs with `replicas.min` above 0 that are not ready."""
    return [
        llm["name"] for llm in status["llms"] if llm["replicas_min"] and llm["state"] != "ready"
    ]


def failures(status: mesh_status.MeshStatus | None) -> str:
    """Return what is not ready and why, and how much is, as the end of an error message."""
    if status is None:
        return ": the controller does not answer"
    workers: list[Mapping[str, Any]] = [
        worker for pool in status["pools"] for worker in pool["workers"]
    ]
    gateways = status["gateways"]
    missing = [
        f"{part.get('id', 'gateway')}: {part['reason'] or part['state']}"
        for part in (*workers, *gateways)
        if part["state"] != "ready"
    ]
    nodes = len(status["nodes"])
    if nodes and not gateways:
        missing.append(f"gateway: none of the {nodes} nodes has the labels of gateway.placement")
    ready = f"{_count_ready(workers)} of {len(workers)} workers are ready"
    return "".join(f"; {words}" for words in (*missing, ready))
