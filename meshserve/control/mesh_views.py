"""What users see of the mesh: its state joined with the workers' last reports, ready for JSON."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from meshserve.core.llm import llm_state, replica_state
from meshserve.core.mesh import mesh
from meshserve.core.processes import gateways, workers
from meshserve.core.values import catalog, llm_spec, model, reports

STATE_ORDER = ("ready", "loading", "fetching", "parked", "evicting", "failed", "absent")
UNDER_WAY = ("loading", "fetching")
Json = dict[str, Any]
Copies = Mapping[str, reports.CopyReport]
Place = tuple[str, tuple[Any, ...]]


def status(state: mesh.Mesh) -> Json:
    """Pools with their workers, gateways, and how many models there are in which state."""
    pools = [_pool(state, pool.name, pool.settings.device) for pool in state.catalog.desired.pools]
    workers = [worker for pool in pools for worker in pool["workers"]]
    is_ready = all(each["state"] == "ready" for each in workers) and state.gateways.are_serving
    return {
        "state": "draining" if state.is_draining else "ready" if is_ready else "starting",
        "endpoint": state.catalog.desired.gateway.listen,
        "pools": pools,
        "gateways": [
            _gateway(gate, state.catalog.desired.gateway.listen)
            for gate in state.gateways.records.values()
        ],
        "models": _counts(state),
        "spread": [
            {"model": route.name, "workers": list(route.worker_ids)}
            for route in state.hot_models.routes()
        ],
        "llms": [_llm(each) for each in state.llms.llms.values()],
    }


def _pool(state: mesh.Mesh, name: str, device: str) -> Json:
    return {
        "name": name,
        "device": device,
        "workers": [_worker(worker) for worker in state.workers.of_pool(name)],
    }


def _worker(worker: workers.WorkerRecord) -> Json:
    said = worker.report
    states: Counter[str] = Counter(copy.state for copy in worker.copies.values())
    return {
        "id": worker.id,
        "node": worker.endpoint.node if worker.endpoint else "",
        "pid": worker.pid,
        "state": worker.state,
        "reason": worker.reason,
        "restarts": worker.restarts,
        "resident": states["ready"] + states["parked"],
        "loading": sum(states[each] for each in UNDER_WAY),
        "booked_bytes": _bytes(said.booked if said else model.Footprint()),
        "budget_bytes": _bytes(said.budget if said else worker.settings.memory),
        "private_bytes": said.private_bytes if said else 0,
        **(said.counters if said else reports.NO_COUNTS)._asdict(),
    }


def _gateway(gate: gateways.GatewayRecord, listen: str) -> Json:
    said = gate.report
    return {
        "node": gate.node,
        "pid": said.pid if said else 0,
        "envoy_pid": said.envoy_pid if said else 0,
        "state": gate.state,
        "reason": gate.reason,
        "listen": said.listen if said else listen,
        "restarts": gate.restarts + (said.restarts if said else 0),
    }


def _llm(each: llm_state.LlmRecord) -> Json:
    return {
        "name": each.name,
        "state": each.state,
        "reason": each.reason,
        "device": each.spec.device,
        "names": list(each.spec.names),
        "replicas_min": each.spec.replicas_min,
        "replicas_max": each.spec.replicas_max,
        "replicas": [_replica(replica) for replica in each.replicas.values()],
        "held": len(each.held),
        "turned_away": each.turned_away,
        "starts": each.starts.stat.count,
        "start_s": each.starts.expected_s if each.starts.stat.count else None,
        "wakes": each.wakes.stat.count,
        "wake_s": each.wakes.expected_s if each.wakes.stat.count else None,
    }


def _replica(replica: replica_state.ReplicaRecord) -> Json:
    said = (replica.report or llm_spec.LlmReport(replica.id))._asdict()
    return {
        "id": replica.id,
        "node": replica.endpoint.node if replica.endpoint else "",
        "pid": replica.pid,
        "state": replica.public_state,
        "reason": replica.reason,
        "restarts": max(0, replica.starts - 1),
        **{name: value for name, value in said.items() if name != "replica_id"},
    }


def _counts(state: mesh.Mesh) -> Json:
    states: dict[model.ModelId, str] = {}
    for worker in state.workers.records.values():
        for id_, copy in worker.copies.items():
            states[id_] = min(states.get(id_, "absent"), copy.state, key=STATE_ORDER.index)
    counts = Counter(states.values())
    return {
        "registered": len(state.catalog.models),
        "resident": counts["ready"] + counts["parked"],
        "loading": sum(counts[each] for each in UNDER_WAY),
        "failed": counts["failed"],
    }


def _bytes(footprint: model.Footprint) -> Json:
    return {"host": footprint.host_bytes, "gpu": footprint.gpu_bytes}


def reported_copies(state: mesh.Mesh, id_: model.ModelId) -> dict[str, reports.CopyReport]:
    """The model's copies as the workers last reported them."""
    return {
        worker.id: worker.copies[id_]
        for worker in state.workers.records.values()
        if id_ in worker.copies
    }


def foremost(copies: Copies) -> tuple[str, reports.CopyReport] | None:
    """The worker and the copy that tell the model's state: a ready one before all others."""
    return min(copies.items(), key=lambda each: STATE_ORDER.index(each[1].state), default=None)


def one_model(state: mesh.Mesh, declared: catalog.ModelDeclared, copies: Copies) -> Json:
    """One model as users see it, its state told by `copies`."""
    spec = declared.spec
    worker, copy = foremost(copies) or ("", reports.CopyReport(spec.id, "absent"))
    return {
        "name": spec.id.name,
        "version": spec.id.version,
        "versions": list(state.catalog.models.versions(spec.id.name)),
        "state": copy.state,
        "reason": copy.reason,
        "runtime": spec.runtime,
        "uri": spec.uri,
        "pool": spec.pool,
        "pinned": spec.pinned,
        "origin": str(spec.origin),
        "worker": worker,
        "footprint_bytes": _bytes(
            copy.footprint if any(copy.footprint) else last_measured(declared)
        ),
        "requests": sum(each.requests for each in copies.values()),
        "aliases": sorted(state.catalog.aliases_of(spec.id.name)),
    }


def last_measured(declared: catalog.ModelDeclared) -> model.Footprint:
    """What the model took when it was last measured; nothing if it never was."""
    return declared.measured.footprint if declared.measured else model.Footprint()


def footprint(state: mesh.Mesh, declared: catalog.ModelDeclared) -> model.Footprint:
    """What the model takes now, or did when it was last measured."""
    found = foremost(reported_copies(state, declared.spec.id))
    return found[1].footprint if found and any(found[1].footprint) else last_measured(declared)


@dataclass(frozen=True, slots=True)
class ModelFilter:
    """Which models a listing is asked for. `after` is the last line of the page before, as `next` gave it."""

    prefix: str = ""
    state: str = ""
    limit: int = 1000
    after: str = ""


def models(state: mesh.Mesh, choice: ModelFilter) -> Json:
    """A page of models by name and version, and where the next one begins."""
    after = cursor(choice.after)
    found = heapq.nsmallest(
        choice.limit + 1,
        _chosen(state, choice, after),
        key=lambda declared: _place(declared.spec.id),
    )
    page, rest = found[: choice.limit], found[choice.limit :]
    views = [
        one_model(state, declared, reported_copies(state, declared.spec.id)) for declared in page
    ]
    return {"models": views, "next": _mark(page[-1].spec.id) if rest else None}


def _chosen(
    state: mesh.Mesh, choice: ModelFilter, after: Place | None
) -> Iterator[catalog.ModelDeclared]:
    for declared in state.catalog.models:
        id_ = declared.spec.id
        is_after = after is None or _place(id_) > after
        if (
            is_after
            and id_.name.startswith(choice.prefix)
            and choice.state in ("", _state(state, id_))
        ):
            yield declared


def _state(state: mesh.Mesh, id_: model.ModelId) -> str:
    found = foremost(reported_copies(state, id_))
    return found[1].state if found else "absent"


def _place(id_: model.ModelId) -> Place:
    return id_.name, catalog.version_order(id_.version)


def _mark(id_: model.ModelId) -> str:
    return f"{id_.name}/{id_.version}"


def cursor(after: str) -> Place | None:
    """The place in the listing that `next` named; a bare name is the end of its versions."""
    if not after:
        return None
    name, slash, version = after.partition("/")
    return (name, catalog.version_order(version)) if slash else (name, (math.inf,))
