"""One worker's models: their predictions, leases on their copies, descriptions and statistics.

`Residency` (core) decides which copies are in memory, and `CopyEffects` performs its commands.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Awaitable, Mapping

from meshserve import errors, tasks
from meshserve.core.memory import copies, eviction, residency, version_choice
from meshserve.core.memory import residency_events as ev
from meshserve.core.values import catalog, catalog_sync, desired, model, model_stats
from meshserve.protocol import inference, model_description, parameters
from meshserve.worker.models import (
    copy_effects,
    copy_trials,
    failures,
    isolated_process,
    lease_waits,
    model_traffic,
    queued_runs,
    request_counts,
    resident_model,
    run_journal,
    run_requests,
    run_watch,
    served_descriptions,
    surroundings,
    version_leases,
)

TICK_S = 0.25


class ModelHost:
    """The models of one worker, served from one event loop."""

    def __init__(
        self,
        settings: desired.WorkerSettings,
        outside: surroundings.Surroundings,
        journal: run_journal.RunJournal | None = None,
    ) -> None:
        """Without a journal no other process knows what ran when this one ended."""
        self._settings = settings
        self._follower = catalog_sync.CatalogFollower()
        limits = copies.WorkerLimits(
            settings.memory, settings.loads_parallel, settings.queue_max, settings.idle_unload_s
        )
        self._residency = residency.Residency(limits, eviction.POLICIES[settings.eviction])
        self.watch = run_watch.RunWatch()
        self.trials = copy_trials.CopyTrials(
            *(journal or run_journal.RunJournal(), self._residency.copies, self._rebind),
            *(self.watch, settings.memory.host_bytes),
        )
        self._effects = copy_effects.CopyEffects(
            settings, outside, self._follower, self._residency.copies, self._handle, self.trials
        )
        self.proofs = self._effects.proofs
        find_earlier = self._effects.earlier.find
        self._leases = version_leases.VersionLeases(
            self._follower, self._residency, self.lease, self.ensure_loaded, find_earlier
        )
        self._ready: dict[tuple[str, str], version_leases.ReadyModel] = {}
        self._counts = request_counts.RequestCounts()
        self.traffic = model_traffic.ModelTraffic()
        self._waits = lease_waits.LeaseWaits(self._effects.resident, self._handle)
        self._events: collections.deque[ev.Event] = collections.deque()
        self._is_handling = False
        self._loop = asyncio.get_running_loop()

    @property
    def catalog_follower(self) -> catalog_sync.CatalogFollower:
        """The pool's catalog as this worker has it, only for reading."""
        return self._follower

    def apply(self, step: catalog_sync.SyncStep) -> None:
        """Apply a step of the catalog; a changed model's copy serves until the new one is ready.

        Raises catalog_sync.MissedStep; then nothing is changed.
        """
        self._record_uses()
        changes = self._follower.apply(step)
        for change in changes:
            self._follow(change)
        # After all changes are followed: which copy answers depends on each of them.
        for change in changes:
            if isinstance(change, catalog.ModelDeclared):
                self._leases.replace_soon(change.spec.id)

    def _follow(self, change: catalog.Change) -> None:
        if isinstance(change, catalog.StandingChange):
            self.trials.apply(change)
        elif isinstance(change, catalog.JoiningStopped):
            self.proofs.adopt_stop(change, self.find_resident, self._residency.copies)
        elif isinstance(change, catalog.ModelWithdrawn):
            self._forget_model(change.id, is_replaced=False)
            self._counts.forget(change.id)
        elif isinstance(change, catalog.ModelDeclared) and self._effects.has_fetched_other(change):
            self._forget_model(change.spec.id, is_replaced=True)

    def _forget_model(self, id_: model.ModelId, *, is_replaced: bool) -> None:
        keeps = is_replaced or self._leases.is_superseded(id_)
        self._rebind(id_, keeps_copy=keeps, is_replaced=is_replaced)

    def _rebind(
        self, id_: model.ModelId, *, keeps_copy: bool = False, is_replaced: bool = True
    ) -> None:
        """Have the model's next request fetch its artifact anew, or none if it `is_replaced` not.

        With `keeps_copy` its present copy answers until then.
        """
        self._effects.forget_model(id_)
        self._handle(ev.ModelForgotten(id_, is_replaced, keeps_copy))

    # Predictions

    def infer(
        self, call: inference.InferCall, expires_s: float
    ) -> inference.InferReply | Awaitable[inference.InferReply]:
        """Run the model of the call; return the reply if its copy is ready and the run is quick.

        `expires_s` is the deadline on the event loop's clock. An awaitable must be awaited, because
        it may hold a lease; cancelling it drops a run that has not begun. Raises, at once or when
        awaited, ModelNotFound, InvalidRequest, ModelRaised, Overloaded, DeadlineExceeded, or the
        reason why the model is not loaded.
        """
        ready = self._acquire(call.model, call.version)
        if ready is None:
            return self._load_and_infer(call, expires_s)
        outcome = self._run(call, ready, expires_s)
        if not isinstance(outcome, inference.InferReply):
            self._counts.add(ready.id)
            self._lease_ready(ready.held_id)
            return self._finish(outcome, expires_s)
        return outcome

    def _acquire(self, name: str, version: str) -> version_leases.ReadyModel | None:
        """Return the model that the name means if its copy is ready. Raises ModelNotFound.

        The result is kept until the next event: before that neither the catalog nor the state of a
        copy changes. The event records all uses together.
        """
        ready = self._ready.get((name, version))
        if ready is None:
            id_ = held_id = self._follower.catalog.resolve(name, version)
            key = self._residency.find_ready(id_)
            if key is None or id_ in self._follower.catalog.unloaded:
                held_id = self._leases.pick(name, version) or id_
                key = self._residency.find_ready(held_id)
            if key is None:
                return None
            ready = self._ready_model(held_id, self._effects.resident(key))
            self._ready[name, version] = ready
        return ready

    def _ready_model(
        self, held_id: model.ModelId, resident: resident_model.ResidentModel
    ) -> version_leases.ReadyModel:
        id_ = version_choice.public_id(held_id)
        return version_leases.ReadyModel(id_, held_id, resident, self._counts.stats[id_])

    def _run(
        self, call: inference.InferCall, ready: version_leases.ReadyModel, expires_s: float
    ) -> inference.InferReply | queued_runs.QueuedRun:
        began_s, signature = time.perf_counter(), ready.resident.signature
        call.resolved = ready.id
        try:
            inputs = inference.check_inputs(call, signature)
            rows = inference.row_count(inputs, signature)
            request = run_requests.RunRequest(inputs, call.outputs, rows, expires_s, ready.id, call)
            if ready.resident.needs_details:
                request.details = parameters.details_of(call.source, call.headers)
            outputs = ready.resident.batcher.run(request, ready.stats)
            if signature.has_open_outputs and not isinstance(outputs, asyncio.Future):
                signature = ready.resident.answered(call.inputs, outputs)
        except errors.MeshError as error:
            self._end_quick_run(ready)
            failures.count(ready.stats, run_requests.labels_of(ready.id, call), error, began_s)
            raise
        if isinstance(outputs, asyncio.Future):
            return queued_runs.QueuedRun(call, ready, rows, outputs, self.trials.explain)
        self._end_quick_run(ready)
        ready.stats.record_answer(rows or 1, time.perf_counter() - began_s, time.time())
        return inference.InferReply(call.model, ready.id.version, call.id, outputs, signature)

    async def _load_and_infer(
        self, call: inference.InferCall, expires_s: float
    ) -> inference.InferReply:
        call.resolved = self._follower.catalog.resolve(call.model, call.version)
        held_id, resident = await self._leases.lease(call.model, call.version, expires_s)
        ready = self._ready_model(held_id, resident)
        self._counts.add(ready.id)
        try:
            outcome = self._run(call, ready, expires_s)
        except errors.MeshError:
            self._end_queued_run(ready)
            raise
        if not isinstance(outcome, inference.InferReply):
            return await self._finish(outcome, expires_s)
        self._end_queued_run(ready)
        return outcome

    async def _finish(
        self, queued: queued_runs.QueuedRun, expires_s: float
    ) -> inference.InferReply:
        """Wait for the reply, and end the lease with the run; begin again if it has not begun."""
        try:
            return await queued.answer()
        except isolated_process.NotRun:
            # The copy's process died of an earlier request, or a run of the copy hangs. The next
            # process may answer, and the back-off between deaths ends this.
            pass
        finally:
            queued.call_at_end(self._end_queued_run)
        return await self._load_and_infer(queued.call, expires_s)

    def _end_queued_run(self, ready: version_leases.ReadyModel) -> None:
        """Release the copy; or prove first that its rows are independent, if joining would pay."""
        resident = ready.resident
        joined = resident.batcher.joining
        if joined.take_stop():
            ready.stats.joins_stopped += 1
            self._effects.tell_join_stop(resident)
        # The proof runs the model, so it takes over the lease.
        if joined.begin_proof():
            tasks.spawn(self._effects.prove_and_release(resident), "proof of independent rows")
        else:
            self.release(resident)

    def _end_quick_run(self, ready: version_leases.ReadyModel) -> None:
        ready.uses += 1
        ready.last_used_s = self._loop.time()

    def _record_uses(self) -> None:
        """Record the uses since the last event in `Residency`, and look names up anew."""
        for ready in self._ready.values():
            if ready.uses:
                key = ready.resident.key
                self._residency.record_use(key, ready.last_used_s, ready.uses)
                self._counts.add(ready.id, ready.uses)
        self._ready.clear()

    # Descriptions

    async def describe(
        self, name: str, version: str, expires_s: float
    ) -> model_description.ServedModel:
        """Load the model if needed, and return its signature and versions.

        A signature is verified by loading, hence the load. Raises as `infer` does.
        """
        held_id, resident = await self._leases.lease(name, version, expires_s)
        self.release(resident)
        return served_descriptions.describe(name, held_id, resident, self._follower.catalog)

    def statistics(self, name: str, version: str) -> list[model_description.ModelStatistics]:
        """Return the counters of one version, or of all if `version` is empty.

        Raises ModelNotFound.
        """
        ids = served_descriptions.ids(self._follower.catalog, name, version)
        stats, footprint = self._counts.stats, self.footprint
        return [model_description.ModelStatistics(id_, stats[id_], footprint(id_)) for id_ in ids]

    def is_ready(self, name: str, version: str) -> bool:
        """Return whether clients may send requests for the model. Raises ModelNotFound."""
        return self._leases.is_ready(name, version)

    def find_resident(self, key: str) -> resident_model.ResidentModel | None:
        """Return the copy of this key if it is in memory."""
        return self._effects.find_resident(key)

    def footprint(self, id_: model.ModelId) -> model.Footprint:
        """Return the memory booked for the model's copy."""
        return self._leases.footprint(id_)

    # Leases

    async def lease(self, id_: model.ModelId, expires_s: float) -> resident_model.ResidentModel:
        """Load the model if needed, and return its copy. The caller must call `release` afterwards.

        `expires_s` is the deadline on the event loop's clock. Raises DeadlineExceeded, or the
        reason why the model is not loaded.
        """
        ready = self._lease_ready(id_)
        if ready is not None:
            return ready
        with self.traffic.waiting(version_choice.public_id(id_)):
            return await self._waits.wait(id_, expires_s)

    def _lease_ready(self, id_: model.ModelId) -> resident_model.ResidentModel | None:
        """Lease the model's copy if it is ready."""
        self._record_uses()
        key = self._residency.lease(id_, self._loop.time())
        return None if key is None else self._effects.resident(key)

    def release(self, resident: resident_model.ResidentModel) -> None:
        """End a lease."""
        self._handle(ev.LeaseReleased(resident.key))

    # Commands of the controller

    async def ensure_loaded(self, id_: model.ModelId, timeout_s: float) -> None:
        """Return once the model is in memory. Raises as `lease` does."""
        ready = self._lease_ready(id_)
        self.release(ready or await self._waits.wait(id_, self._loop.time() + timeout_s))

    def unload(self, id_: model.ModelId) -> None:
        """Free the model's copy after its last use."""
        for bound in (id_, *self._residency.previous.of_version(id_)):
            self._handle(ev.UnloadRequested(bound))

    def set_pinned(self, id_: model.ModelId, is_pinned: bool) -> None:
        """Pin the model, which keeps its copy in memory from its next load on, or unpin it."""
        self._handle(ev.PinSet(id_, is_pinned))

    # Reports

    @property
    def residency(self) -> residency.Residency:
        """The present state of all copies, only for reading."""
        self._record_uses()
        return self._residency

    @property
    def stats(self) -> Mapping[model.ModelId, model_stats.ModelStats]:
        """Counters of every model that had a request, until it is withdrawn."""
        return self._counts.stats

    @property
    def effects(self) -> copy_effects.CopyEffects:
        """What is behind the copies, only for reading."""
        return self._effects

    def take_changed(self) -> set[model.ModelId]:
        """Return the models whose copies, or their joining, changed since the last call."""
        changed = self.residency.changed | self._effects.proofs.take_judged()
        self._residency.changed.clear()
        return set(map(version_choice.public_id, changed))

    def take_measured(self) -> dict[model.ModelId, model.Measured]:
        """Return the footprints measured since the last call."""
        return self._effects.take_measured()

    def take_load(self) -> dict[model.ModelId, request_counts.ModelLoad]:
        """Return the load of each model that had requests since the last call."""
        self._record_uses()
        return self._counts.take_load()

    # Events and time

    async def run(self) -> None:
        """Measure memory and fire the timer every TICK_S seconds, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.trials.look_for_deaths()
            for key in self.watch.sweep(self._loop.time()):
                self.trials.suspect_hung(key)
            self.trials.end_probations()
            await self._effects.trim_memory()
            self._handle(self._effects.measure_memory())
            self._handle(ev.TimerFired())
            self._effects.forget_unrecorded()
            if self._residency.is_short:
                self._effects.drop_detached()

    def _handle(self, event: ev.Event) -> None:
        """Handle an event, and then, in order, the events that its commands emit meanwhile."""
        self._events.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        self._record_uses()
        try:
            while self._events:
                for command in self._residency.handle(self._events.popleft(), self._loop.time()):
                    self._perform(command)
        finally:
            self._is_handling = False

    def _perform(self, command: ev.Command) -> None:
        match command:
            case ev.GrantLease(ticket, key):
                self._waits.grant(ticket, key)
            case ev.RefuseLease(ticket, error):
                self._waits.refuse(ticket, error)
            case _:
                self._effects.perform(command)

    async def close(self) -> None:
        """Free everything. Threads of loads that hang end with the process."""
        await self._effects.close()
