"""Pools and their workers as the JSON that users see."""

from __future__ import annotations

from collections import Counter
from typing import Any

from meshserve.core.mesh import mesh_view
from meshserve.core.values import model, reports

LOADING_STATES = ("loading", "fetching")
Json = dict[str, Any]


def pools(view: mesh_view.MeshView) -> list[Json]:
    """Return every pool with its workers, how many it should have, and why that changed last."""
    return [
        {
            "name": pool.name,
            "device": pool.settings.device,
            "workers_min": pool.workers_min,
            "workers_max": pool.workers,
            "workers_wanted": view.pools[pool.name].workers_wanted,
            "reason": view.pools[pool.name].reason,
            "held": view.pools[pool.name].held_requests,
            "workers": [_worker(worker) for worker in view.of_pool(pool.name)],
        }
        for pool in view.config.pools
    ]


def are_ready(view: mesh_view.MeshView) -> bool:
    """Return whether all workers are ready, of a pool that follows its load as many as it needs."""
    return all(
        worker.is_ready
        for pool in view.config.pools
        for worker in view.of_pool(pool.name)
        if not pool.scaling
    ) and all(
        sum(worker.is_ready for worker in view.of_pool(pool.name)) >= pool.workers_min
        for pool in view.config.pools
        if pool.scaling
    )


def _worker(worker: mesh_view.WorkerView) -> Json:
    report = worker.report
    states: Counter[str] = Counter(copy.state for copy in worker.copies.values())
    return {
        "id": worker.id,
        "node": worker.endpoint.node if worker.endpoint else "",
        "pid": worker.pid,
        "state": worker.state.value,
        "reason": worker.reason,
        "restarts": worker.restarts,
        "resident": states["ready"] + states["parked"],
        "loading": sum(states[state] for state in LOADING_STATES),
        "booked_bytes": in_bytes(report.booked if report else model.Footprint()),
        "budget_bytes": in_bytes(report.budget if report else worker.settings.memory),
        "private_bytes": report.private_bytes if report else 0,
        **(report.counters if report else reports.NO_COUNTS)._asdict(),
    }


def in_bytes(footprint: model.Footprint) -> Json:
    """Return the bytes of each kind of memory."""
    return {"host": footprint.host_bytes, "gpu": footprint.gpu_bytes}
