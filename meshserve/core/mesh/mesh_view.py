"""The mesh as readers see it: the only way in which the control plane's APIs read its state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from meshserve import errors
from meshserve.core.catalog import catalog_index
from meshserve.core.llm import llm_state, replica_state
from meshserve.core.mesh import event_log, model_totals, node_views
from meshserve.core.processes import gateways
from meshserve.core.processes import workers as workers_part
from meshserve.core.processes.reconcile import ProcessState
from meshserve.core.values import catalog, desired, llm_spec, model, reports, snapshots


class ModelsView(Protocol):
    """All registered models, for reading."""

    def __iter__(self) -> Iterator[catalog.ModelDeclared]: ...

    def __len__(self) -> int: ...

    def resolve(self, name: str, version: str = "") -> model.ModelId:
        """Return the version that a request means. Raises ModelNotFound."""
        ...

    def declared(self, id_: model.ModelId) -> catalog.ModelDeclared | None:
        """Return the declaration of a version, None if it is not registered."""
        ...

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of a model, oldest first."""
        ...


class EventsView(Protocol):
    """The log of what has happened, for reading."""

    @property
    def missed(self) -> int:
        """How many events workers could not tell."""
        ...

    @property
    def last_number(self) -> int:
        """The number of the newest event."""
        ...

    def read(self, choice: event_log.EventChoice) -> list[event_log.NumberedEvent]:
        """Return the chosen events in the order of their numbers."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker. `copies` are its copies as it reported them last.

    `answered` has the requests of models that have left its memory.
    """

    id: str
    settings: desired.WorkerSettings
    state: ProcessState
    reason: str
    restarts: int
    pid: int
    endpoint: model.Endpoint | None
    report: reports.WorkerReport | None = field(repr=False)
    copies: Mapping[model.ModelId, reports.CopyReport] = field(repr=False)
    answered: Mapping[model.ModelId, int] = field(repr=False)

    @property
    def is_ready(self) -> bool:
        """Whether the worker takes requests."""
        return self.state is ProcessState.READY


@dataclass(frozen=True, slots=True)
class GatewayView:
    """One node's gateway."""

    node: str
    state: ProcessState
    reason: str
    restarts: int
    report: reports.GatewayReport | None


@dataclass(frozen=True, slots=True)
class PoolView:
    """How many workers a pool should have, after how many changes, and why since the last one.

    `held_requests` wait at the gateways for its first worker.
    """

    workers_wanted: int
    changes: int = 0
    reason: str = ""
    held_requests: int = 0


@dataclass(frozen=True, slots=True)
class DurationView:
    """Starts or wakes of an LLM: their number, their total time, and the expected next time."""

    count: int
    total_s: float
    expected_s: float


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica of an LLM."""

    id: str
    state: llm_spec.ReplicaState
    reason: str
    restarts: int
    pid: int
    endpoint: model.Endpoint | None
    report: llm_spec.LlmReport | None


@dataclass(frozen=True, slots=True)
class LlmView:
    """One LLM. Requests that are held wait at the gateways for a replica."""

    name: str
    spec: llm_spec.LlmSpec
    state: str
    reason: str
    replicas: tuple[ReplicaView, ...]
    held_requests: int
    held_bytes: int
    turned_away: int
    starts: DurationView
    wakes: DurationView


@dataclass(frozen=True, slots=True)
class MeshView:
    """The mesh after one event.

    Small parts are copied. Models, aliases and copies are shared with the mesh, because there may
    be 100,000 of them: read those before the next `await`, after which they may have changed.
    """

    config: desired.Desired
    is_draining: bool
    are_gateways_serving: bool
    workers: tuple[WorkerView, ...]
    gateways: tuple[GatewayView, ...]
    hot_routes: tuple[snapshots.HotRoute, ...]
    llms: tuple[LlmView, ...]
    nodes: tuple[node_views.NodeView, ...]
    pools: Mapping[str, PoolView]
    models: ModelsView
    aliases: Mapping[str, desired.DesiredAlias]
    events: EventsView
    totals: model_totals.ModelTotals
    _index: catalog_index.CatalogIndex = field(repr=False)
    _workers: workers_part.Workers = field(repr=False)

    def declared(self, name: str, version: str = "") -> catalog.ModelDeclared:
        """Return the declaration that a name, version or alias means. Raises ModelNotFound."""
        id_ = self.models.resolve(name, version)
        declared = self.models.declared(id_)
        if declared is None:
            raise errors.ModelNotFound(f"model {str(id_)!r} is not registered")
        return declared

    def aliases_of(self, name: str) -> frozenset[str]:
        """Return the aliases that mean the model now."""
        return self._index.aliases_of(name)

    def count_of_origin(self, origin: model.Origin) -> int:
        """Return how many versions the origin has declared."""
        return len(self._index.of_origin(origin))

    def is_unloaded(self, name: str) -> bool:
        """Return whether the API has unloaded a version of the model."""
        ids = (model.ModelId(name, version) for version in self.models.versions(name))
        every = (self.models.declared(id_) for id_ in ids)
        return any(declared is not None and declared.spec.unloaded for declared in every)

    def quarantine(self, id_: model.ModelId) -> str:
        """Return why the model is in quarantine, empty if it is not.

        A model with a ready copy is not: its artifact is another one by now.
        """
        held = self._index.quarantines_of(*id_)
        if not held or any(copy.state == "ready" for copy in self.reported_copies(id_).values()):
            return ""
        return held[0].reason

    def quarantined(self) -> list[tuple[model.ModelId, str]]:
        """Return the models in quarantine that are still registered, each with the reason."""
        held = self._index.quarantined_ids()
        named = ((id_, self.quarantine(id_)) for id_ in sorted(held) if self.models.declared(id_))
        return [(id_, reason) for id_, reason in named if reason]

    def hung_runs(self, id_: model.ModelId) -> int:
        """Return how many runs of the model hang in threads of workers."""
        reported = (worker.report for worker in self.workers if worker.report)
        return sum(copy.runs for report in reported for copy in report.hung if id_ in copy.ids)

    def is_moving(self, alias: str, target: str) -> bool:
        """Return whether the alias still waits for this target, which has not failed to load."""
        current = self.aliases.get(alias)
        return current is not None and current.target == target and not current.failure

    def home(self, name: str) -> str | None:
        """Return the ready worker that gets the requests for a model or alias, or None."""
        pool = self._index.pool_of(name)
        return self._workers.home(pool, name) if pool else None

    def of_pool(self, pool: str) -> list[WorkerView]:
        """Return the pool's workers, by id."""
        return [worker for worker in self.workers if worker.settings.pool == pool]

    def reported_copies(self, id_: model.ModelId) -> dict[str, reports.CopyReport]:
        """Return the model's copies by worker, as the workers reported them last."""
        return {worker.id: worker.copies[id_] for worker in self.workers if id_ in worker.copies}

    def requests(self, id_: model.ModelId, copies: Mapping[str, reports.CopyReport]) -> int:
        """Return how many requests the model had, on workers with these copies and on others.

        A worker counts from the begin of its process, and tells sooner than the totals do.
        """
        gone = (worker.answered.get(id_, 0) for worker in self.workers if worker.id not in copies)
        present = sum(gone) + sum(copy.requests for copy in copies.values())
        figures = self.totals.shown.get(id_)
        return max(present, figures.requests if figures else 0)

    def holders(self, id_: model.ModelId) -> list[str]:
        """Return the ready workers that may have a copy, or had one: its homes, and others."""
        # Requests by an alias go to the alias's own home.
        homes = {self.home(name) for name in (id_.name, *self.aliases_of(id_.name))}
        reporters = {
            worker.id
            for worker in self.workers
            if worker.is_ready and (id_ in worker.copies or id_ in worker.answered)
        }
        return sorted(reporters.union(home for home in homes if home is not None))


def worker_views(records: Iterable[workers_part.WorkerRecord]) -> tuple[WorkerView, ...]:
    """Return the views of the workers, by id."""
    return tuple(
        WorkerView(
            worker.id,
            worker.settings,
            worker.state,
            worker.reason,
            worker.restarts,
            worker.pid,
            worker.endpoint,
            worker.report,
            # Shared, not copied: there may be thousands on each worker.
            MappingProxyType(worker.copies),
            MappingProxyType(worker.answered),
        )
        for worker in sorted(records, key=lambda worker: worker.id)
    )


def gateway_views(records: Iterable[gateways.GatewayRecord]) -> tuple[GatewayView, ...]:
    """Return the views of the gateways, in the order of their nodes' appearance."""
    return tuple(
        GatewayView(gateway.node, gateway.state, gateway.reason, gateway.restarts, gateway.report)
        for gateway in records
    )


def llm_views(records: Iterable[llm_state.LlmRecord]) -> tuple[LlmView, ...]:
    """Return the views of the LLMs."""
    return tuple(
        LlmView(
            name=llm.name,
            spec=llm.spec,
            state=llm.state,
            reason=llm.reason,
            replicas=tuple(_replica_view(replica) for replica in llm.replicas.values()),
            held_requests=len(llm.held),
            held_bytes=llm.held.size_bytes,
            turned_away=llm.turned_away,
            starts=_duration_view(llm.starts),
            wakes=_duration_view(llm.wakes),
        )
        for llm in records
    )


def _replica_view(replica: replica_state.ReplicaRecord) -> ReplicaView:
    return ReplicaView(
        replica.id,
        replica.public_state,
        replica.reason,
        # The first start is no restart; of a replica that was taken over no start is known.
        max(0, replica.starts - 1),
        replica.pid,
        replica.endpoint,
        replica.report,
    )


def _duration_view(estimate: llm_state.DurationEstimate) -> DurationView:
    return DurationView(estimate.stat.count, estimate.stat.total_s, estimate.expected_s)
