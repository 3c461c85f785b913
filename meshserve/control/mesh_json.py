"""The mesh's state and the workers' last reports as the JSON that users see."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from meshserve import errors
from meshserve.control import node_json, pool_json
from meshserve.core.mesh import mesh_view
from meshserve.core.values import catalog, desired, llm_spec, model, reports, version_order
from meshserve.storage import model_uri

STATE_ORDER = ("ready", "loading", "fetching", "parked", "evicting", "failed", "absent")
"""A model has the first of these states that any of its copies has."""

NO_PROBLEMS: Mapping[str, tuple[str, ...]] = MappingProxyType({})
Json = dict[str, Any]
Copies = Mapping[str, reports.CopyReport]
Cursor = tuple[str, tuple[Any, ...]]


def status(view: mesh_view.MeshView, problems: Mapping[str, tuple[str, ...]] = NO_PROBLEMS) -> Json:
    """Return pools with their workers, gateways, LLMs, and the number of models by state.

    `problems` are what of each repository, by its place, is not served.
    """
    listen = view.config.gateway.listen
    return {
        "state": _mesh_state(view),
        "endpoint": listen,
        "routed": view.are_gateways_serving,
        "pools": pool_json.pools(view),
        "gateways": [_gateway(gateway, listen) for gateway in view.gateways],
        "models": _counts(view),
        "quarantined": [
            {"model": id_.name, "version": id_.version, "reason": reason}
            for id_, reason in view.quarantined()
        ],
        "spread": [
            {"model": route.name, "workers": list(route.worker_ids)} for route in view.hot_routes
        ],
        "joins_stopped": _stopped(view),
        "hung": _hung(view),
        "aliases_dangling": _dangling(view),
        "hogs": _hogs(view),
        "repositories": [
            {
                "place": repository.place,
                "models": view.count_of_origin(repository.origin),
                "problems": list(problems.get(repository.place, ())),
            }
            for repository in view.config.repositories
        ],
        "llms": [_llm(llm) for llm in view.llms],
        "nodes": [node_json.node(node) for node in view.nodes],
    }


def _mesh_state(view: mesh_view.MeshView) -> str:
    is_ready = pool_json.are_ready(view) and view.are_gateways_serving
    return "draining" if view.is_draining else "ready" if is_ready else "starting"


def _gateway(gateway: mesh_view.GatewayView, listen: str) -> Json:
    report = gateway.report
    return {
        "node": gateway.node,
        "pid": report.pid if report else 0,
        "envoy_pid": report.envoy_pid if report else 0,
        "state": gateway.state.value,
        "reason": gateway.reason,
        "listen": report.listen if report else listen,
        "restarts": gateway.restarts + (report.restarts if report else 0),
        "native": report.native if report else "off",
    }


def _llm(llm: mesh_view.LlmView) -> Json:
    return {
        "name": llm.name,
        "state": llm.state,
        "reason": llm.reason,
        "device": llm.spec.device,
        "names": list(llm.spec.names),
        "replicas_min": llm.spec.replicas_min,
        "replicas_max": llm.spec.replicas_max,
        "replicas": [_replica(replica) for replica in llm.replicas],
        "held": llm.held_requests,
        "turned_away": llm.turned_away,
        "starts": llm.starts.count,
        # What is expected before the first measurement is a guess, which users are not told.
        "start_s": llm.starts.expected_s if llm.starts.count else None,
        "wakes": llm.wakes.count,
        "wake_s": llm.wakes.expected_s if llm.wakes.count else None,
    }


def _replica(replica: mesh_view.ReplicaView) -> Json:
    report = (replica.report or llm_spec.LlmReport(replica.id))._asdict()
    return {
        "id": replica.id,
        "node": replica.endpoint.node if replica.endpoint else "",
        "pid": replica.pid,
        "state": replica.state,
        "reason": replica.reason,
        "restarts": replica.restarts,
        **{name: value for name, value in report.items() if name != "replica_id"},
    }


def _counts(view: mesh_view.MeshView) -> Json:
    states: dict[model.ModelId, str] = {}
    for worker in view.workers:
        for id_, copy in worker.copies.items():
            # By model and not by copy, because one on several workers counts once.
            states[id_] = min(states.get(id_, "absent"), copy.state, key=STATE_ORDER.index)
    counts = Counter(states.values())
    return {
        "registered": len(view.models),
        "resident": counts["ready"] + counts["parked"],
        "loading": sum(counts[state] for state in pool_json.LOADING_STATES),
        "failed": counts["failed"],
    }


def _stopped(view: mesh_view.MeshView) -> list[Json]:
    """Return the models whose requests are joined no more, since that gave other answers."""
    return [
        {
            "model": id_.name,
            "version": id_.version,
            "worker": worker.id,
            "reason": copy.joining_reason,
        }
        for worker in view.workers
        for id_, copy in worker.copies.items()
        if copy.joining == "stopped"
    ]


def _dangling(view: mesh_view.MeshView) -> list[Json]:
    """Return the aliases whose model or version went away, with what there is in its place."""
    dangling = []
    # An LLM's alias is no name of the catalog.
    llms = {llm.name for llm in view.llms}
    for name, alias in sorted(view.aliases.items()):
        try:
            view.models.resolve(name)
        except errors.ModelNotFound as error:
            if alias.name not in llms:
                dangling.append({"alias": name, "reason": error.message})
    return dangling


def _hung(view: mesh_view.MeshView) -> list[Json]:
    """Return the models with runs that go on in threads of workers, though nobody waits."""
    return [
        {"model": id_.name, "version": id_.version, "worker": worker.id, "runs": copy.runs}
        for worker in view.workers
        for copy in (worker.report.hung if worker.report else ())
        for id_ in copy.ids
    ]


def _hogs(view: mesh_view.MeshView) -> list[Json]:
    """Return the models that ran while their worker took far more memory than its budget."""
    return [
        {
            "model": id_.name,
            "version": id_.version,
            "worker": worker.id,
            "times": hog.times,
            "peak_bytes": hog.peak_bytes,
        }
        for worker in view.workers
        for hog in (worker.report.hogs if worker.report else ())
        for id_ in hog.ids
    ]


def foremost(id_: model.ModelId, copies: Copies) -> tuple[str, reports.CopyReport]:
    """Return the worker and the copy that decide the model's state; without copies it is absent."""
    return min(
        copies.items(),
        key=lambda item: STATE_ORDER.index(item[1].state),
        default=("", reports.CopyReport(id_, "absent")),
    )


def alias_failure(view: mesh_view.MeshView, alias: desired.DesiredAlias) -> str:
    """Return why the alias does not mean its target yet, or its model does not load; "" if none."""
    try:
        id_ = view.models.resolve(alias.alias)
    except errors.ModelNotFound:
        # An LLM's alias is no name of the catalog, and a dangling one is told elsewhere.
        return alias.failure
    copy = foremost(id_, view.reported_copies(id_))[1]
    return alias.failure or (copy.reason if copy.state == "failed" else "")


def one_model(view: mesh_view.MeshView, declared: catalog.ModelDeclared, copies: Copies) -> Json:
    """Return one model as users see it, with the state of `copies`."""
    spec = declared.spec
    versions = view.models.versions(spec.id.name)
    worker, copy = foremost(spec.id, copies)
    quarantine = view.quarantine(spec.id)
    if quarantine:
        # Workers that have not been asked for it have no copy to tell of.
        copy = copy._replace(state="failed", reason=quarantine)
    return {
        "name": spec.id.name,
        "version": spec.id.version,
        "versions": list(versions),
        "newest": versions[-1],
        "state": copy.state,
        "reason": "unloaded: load it first" if spec.unloaded else copy.reason,
        "runtime": spec.runtime,
        # Without user, password and query, which may hold secrets.
        "uri": model_uri.redacted(spec.uri),
        "pool": spec.pool,
        "pinned": spec.pinned,
        "origin": str(spec.origin),
        "worker": worker if copy.state != "absent" else "",
        "footprint_bytes": pool_json.in_bytes(_footprint(copy, declared)),
        "requests": view.requests(spec.id, copies),
        "joining": _joining(copy, copies),
        "hung_runs": view.hung_runs(spec.id),
        "aliases": sorted(view.aliases_of(spec.id.name)),
        "aliases_dangling": sorted(
            alias
            for alias in view.aliases_of(spec.id.name)
            if view.aliases[alias].version not in ("", *versions)
        ),
        "replaced": [other.id.version for other in spec.replaced],
    }


def _joining(foremost_copy: reports.CopyReport, copies: Copies) -> Json:
    """Return whether requests share runs: that they ceased to on any worker is told first."""
    stopped = (copy for copy in copies.values() if copy.joining == "stopped")
    shown = next(stopped, foremost_copy)
    return {"state": shown.joining, "reason": shown.joining_reason}


def footprint(view: mesh_view.MeshView, declared: catalog.ModelDeclared) -> model.Footprint:
    """Return the footprint of the model's copy, or the last measured one without a copy."""
    id_ = declared.spec.id
    return _footprint(foremost(id_, view.reported_copies(id_))[1], declared)


def _footprint(copy: reports.CopyReport, declared: catalog.ModelDeclared) -> model.Footprint:
    if any(copy.footprint) or declared.measured is None:
        return copy.footprint
    return declared.measured.footprint


@dataclass(frozen=True, slots=True)
class ModelFilter:
    """Which models a page shows. `after` is `next` of the last page; empty filters match all."""

    prefix: str = ""
    state: str = ""
    limit: int = 1000
    after: str = ""


def models(view: mesh_view.MeshView, choice: ModelFilter) -> Json:
    """Return a page of models by name and version, and the cursor of the next page."""
    # `nsmallest` does not sort all of 100,000 models; one model more shows that a page follows.
    chosen = heapq.nsmallest(
        choice.limit + 1,
        _chosen(view, choice, cursor(choice.after)),
        key=lambda declared: _position(declared.spec.id),
    )
    page, rest = chosen[: choice.limit], chosen[choice.limit :]
    shown = [one_model(view, declared, view.reported_copies(declared.spec.id)) for declared in page]
    last = page[-1].spec.id if rest else None
    return {"models": shown, "next": f"{last.name}/{last.version}" if last else None}


def _chosen(
    view: mesh_view.MeshView, choice: ModelFilter, after: Cursor | None
) -> Iterator[catalog.ModelDeclared]:
    for declared in view.models:
        id_ = declared.spec.id
        is_after = after is None or _position(id_) > after
        if (
            is_after
            and id_.name.startswith(choice.prefix)
            and choice.state in ("", _state(view, id_))
        ):
            yield declared


def _state(view: mesh_view.MeshView, id_: model.ModelId) -> str:
    return foremost(id_, view.reported_copies(id_))[1].state


def _position(id_: model.ModelId) -> Cursor:
    return id_.name, version_order.sort_key(id_.version)


def cursor(after: str) -> Cursor | None:
    """Return the position of a cursor's text, `name/version`; `name` is after all its versions."""
    if not after:
        return None
    name, slash, version = after.partition("/")
    # Infinity is above all sort keys, which begin with 0 or 1.
    return (name, version_order.sort_key(version)) if slash else (name, (math.inf,))
