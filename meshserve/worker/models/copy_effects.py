"""Perform the commands of `Residency`: fetch, load, free, offload and onload copies."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import assert_never

from meshserve import errors
from meshserve.core.memory import copies, version_choice
from meshserve.core.memory import residency_events as ev
from meshserve.core.values import catalog, catalog_sync, desired, model, process_death
from meshserve.runtimes import signatures
from meshserve.worker.models import (
    batcher,
    copy_trials,
    detached,
    earlier_contents,
    effect_tasks,
    isolated_copies,
    join_proofs,
    learned_tensors,
    library_room,
    load_queue,
    loader,
    measurements,
    process_memory,
    resident_model,
    surroundings,
    untouched_loads,
)

QUICK_FREE_BYTES = 32 << 20
"""Smaller copies are freed on the event loop, because handing them to a thread takes longer."""

CORES = os.cpu_count() or 1
RUN_THREADS = min(192, max(64, 4 * CORES))
"""Threads for runs. Even a model of which every run hangs takes a quarter of them at most."""

Effect = ev.FetchArtifact | ev.LoadCopy | ev.FreeCopy | ev.OffloadCopy | ev.OnloadCopy


class CopyEffects:
    """The artifacts, threads and memory behind one worker's copies.

    `records` are the copies of `Residency` by key, which are only read here. When a command has
    ended, `emit` is called with its event, on the event loop.
    """

    def __init__(
        self,
        settings: desired.WorkerSettings,
        outside: surroundings.Surroundings,
        follower: catalog_sync.CatalogFollower,
        records: Mapping[str, copies.Copy],
        emit: Callable[[ev.Event], None],
        trials: copy_trials.CopyTrials,
    ) -> None:
        storage, meter, make_launcher = outside
        self.memory = process_memory.MemoryWatch(settings.memory.host_bytes, meter)
        self._settings = settings
        self._storage = storage
        self.earlier = earlier_contents.EarlierContents(storage, follower)
        self._meter = meter
        self._follower = follower
        self._records = records
        self._emit = emit
        self._trials = trials
        self._load_queue = load_queue.LoadQueue(
            int(settings.memory.host_bytes * detached.SHARE_MAX), trials.journal, meter
        )
        self._fetched_specs: dict[model.ModelId, model.ModelSpec] = {}
        self._measured = measurements.Measurements()
        self._recipes: dict[str, loader.LoadRecipe] = {}
        self._residents: dict[str, resident_model.ResidentModel] = {}
        self._tasks = effect_tasks.EffectTasks(emit)
        self._run_pool = ThreadPoolExecutor(RUN_THREADS, "run")
        # Of their own, so that models that hang when they are closed take no run's place.
        self._free_pool = ThreadPoolExecutor(RUN_THREADS, "free")
        self._places = batcher.RunPlaces(self._run_pool, trials.journal, trials.watch, meter.now_s)
        self._trim_pool = ThreadPoolExecutor(1, "trim")
        self.proofs = join_proofs.JoinProofs(storage, self._check_unchanged, trials.journal)
        self._isolated = isolated_copies.IsolatedCopies(
            settings.memory.host_bytes, self._record_death, make_launcher
        )
        self._loop = asyncio.get_running_loop()

    def perform(self, command: Effect) -> None:
        """Begin to perform the command; its end is emitted as an event."""
        match command:
            case ev.FetchArtifact(id_, attempt):
                failed = functools.partial(ev.FetchFailed, id_, attempt)
                self._tasks.spawn(self._fetch(command), failed)
            case ev.LoadCopy(key):
                self._tasks.spawn(self._load(key), functools.partial(ev.CopyLoadFailed, key))
            case ev.FreeCopy(key):
                self._free(key)
            case ev.OffloadCopy(key):
                loaded = self._residents[key].loaded_copy.loaded
                self._tasks.spawn(self._move(key, loaded.offload, ev.CopyOffloaded(key)))
            case ev.OnloadCopy(key):
                loaded = self._residents[key].loaded_copy.loaded
                self._tasks.spawn(self._move(key, loaded.onload, ev.CopyOnloaded(key)))
            case _:
                assert_never(command)

    def resident(self, key: str) -> resident_model.ResidentModel:
        """Return the copy that is in memory under this key."""
        return self._residents[key]

    def find_resident(self, key: str) -> resident_model.ResidentModel | None:
        """Return the copy under this key if it is in memory."""
        return self._residents.get(key)

    # Fetching

    def fetched_spec(self, id_: model.ModelId) -> model.ModelSpec | None:
        """Return the declaration by which the model's artifact was last fetched."""
        return self._fetched_specs.get(id_)

    def has_fetched_other(self, declared: catalog.ModelDeclared) -> bool:
        """Return whether the model was fetched by another spec, or of other files."""
        fetched, wanted = self.fetched_spec(declared.spec.id), declared.spec_to_fetch
        return fetched is not None and not catalog_sync.can_share_copy(fetched, wanted)

    def forget_model(self, id_: model.ModelId) -> None:
        """Drop the spec and measurement of a model that was withdrawn or declared anew."""
        self._fetched_specs.pop(id_, None)
        self._measured.forget(id_)
        self.earlier.forget(id_)

    async def _fetch(self, command: ev.FetchArtifact) -> None:
        id_, attempt = command.id, command.attempt
        declared = self.earlier.declared(id_)
        if declared is None:
            missing = errors.ModelNotFound(f"model {id_} is not registered")
            self._emit(ev.FetchFailed(id_, attempt, missing))
            return
        spec = declared.spec_to_fetch
        self._fetched_specs[id_] = spec
        try:
            artifact = await self._storage.fetch(spec.uri, spec.checksum, file_root=spec.file_root)
            settings = self._settings
            recipe = loader.make_recipe(
                spec, artifact, settings.device, settings.isolate, settings.predict_timeout_s
            )
            recipe = self._trials.admit(id_, recipe)
        except errors.MeshError as error:
            self._storage.give_up(spec.uri)
            self._emit(ev.FetchFailed(id_, attempt, error))
            return
        recipe = self._isolated.isolate(recipe, self._settings.device)
        self._recipes[recipe.key] = recipe
        self._emit(self._artifact_fetched(command, declared, recipe))

    def _artifact_fetched(
        self, command: ev.FetchArtifact, declared: catalog.ModelDeclared, recipe: loader.LoadRecipe
    ) -> ev.ArtifactFetched:
        """Return the event, with the footprint measured before if the artifact is the same."""
        runtime, artifact = recipe.runtime, recipe.artifact
        measured = self._measured.find(command.id) or declared.measured
        if measured is not None and measured.digest == artifact.digest:
            need, load_s = measured.footprint, measured.load_s
        else:
            need, load_s = runtime.footprint_hint(artifact, recipe.device), 0.0
        self._measured.note_shared(command.id, artifact.digest, self._records.get(recipe.key))
        return ev.ArtifactFetched(
            id=command.id,
            attempt=command.attempt,
            key=recipe.key,
            need=need,
            load_s=load_s,
            can_offload=recipe.device != "cpu" and runtime.can_offload,
            load_timeout_s=declared.spec.load_timeout_s,
            load_extra_bytes=0 if recipe.key in self._load_queue.detached else artifact.size_bytes,
        )

    # Loading

    def take_measured(self) -> dict[model.ModelId, model.Measured]:
        """Return the footprints measured since the last call."""
        return self._measured.take()

    async def _load(self, key: str) -> None:
        recipe, record = self._recipes[key], self._records[key]
        try:
            loaded_copy = await untouched_loads.load(
                self._storage,
                recipe,
                self._check_unchanged,
                functools.partial(self._read, record.need),
                functools.partial(self._load_queue.free, is_detached=False),
            )
        except errors.MeshError as error:
            if isinstance(error, loader.ArtifactChanged):
                for id_ in tuple(record.names):
                    self.forget_model(id_)
                    is_replaced = not version_choice.is_previous(id_)
                    self._emit(ev.ModelForgotten(id_, is_replaced))
            self._storage.give_up(recipe.spec.uri)
            self._emit(ev.CopyLoadFailed(key, error, recipe.death_by(error)))
            return
        self._keep(recipe, record, loaded_copy)

    def _keep(
        self, recipe: loader.LoadRecipe, record: copies.Copy, loaded_copy: loader.LoadedCopy
    ) -> None:
        """Take over a copy that has been loaded, and emit that."""
        key = recipe.key
        resident = self._residents[key] = self._make_resident(recipe, loaded_copy)
        self.memory.mapped_bytes += loaded_copy.mapped_bytes
        # What the process of a trial takes beyond the model is not booked (`measure_memory`).
        footprint = record.need if loader.tried_key(key) else loaded_copy.footprint
        if not loader.tried_key(key):
            self._measured.note_load(record, recipe.artifact.digest, loaded_copy)
        self.earlier.note_loaded(record.names)
        self._emit(ev.CopyLoaded(key, footprint, loaded_copy.load_s))
        # A copy that nobody wants any more is freed by that event, and the end of its process is
        # then no death: it would put a trial's model into quarantine.
        if self._residents.get(key) is resident:
            self._isolated.begin(key, loaded_copy.process)

    async def _read(self, need: model.Footprint, recipe: loader.LoadRecipe) -> loader.LoadedCopy:
        budget_bytes = self._settings.memory.host_bytes

        async def load() -> loader.LoadedCopy:
            library_room.check(recipe, need, self._records, budget_bytes, self._meter.private_bytes)
            return await self._load_queue.load(recipe, need)

        return await self._trials.load(recipe, load)

    async def _check_unchanged(self, recipe: loader.LoadRecipe) -> None:
        """Fetch the artifact again; raise ArtifactChanged if its digest is not that of the key.

        The cache may have dropped the artifact since, and its source may have changed.
        """
        spec = recipe.spec
        artifact = await self._storage.fetch(
            spec.uri, spec.checksum, verifies=True, file_root=spec.file_root
        )
        if artifact.digest != recipe.stored.digest:
            raise loader.ArtifactChanged(
                "the artifact has changed since it was first read; it is read anew",
                retry_after_s=0.0,
            )
        if not self._trials.may_run_here(recipe):
            raise loader.ArtifactChanged("the model is tried alone", retry_after_s=0.0)

    def _make_resident(
        self, recipe: loader.LoadRecipe, loaded_copy: loader.LoadedCopy
    ) -> resident_model.ResidentModel:
        loaded, spec = loaded_copy.loaded, recipe.spec
        signature, capabilities = learned_tensors.opened(loaded.signature), loaded.capabilities
        limits = batcher.shared_limits(
            rows_max=signatures.rows_max(spec, signature),
            queue_max=self._settings.queue_max,
            parallel=min(CORES, RUN_THREADS // 4) if capabilities.is_reentrant else 1,
            is_steady=capabilities.is_steady,
            run_s=recipe.run_s,
        )
        joined = self.proofs.first_verdict(recipe, signature)
        return resident_model.ResidentModel(
            key=recipe.key,
            spec=spec,
            loaded_copy=loaded_copy,
            signature=signature,
            batcher=batcher.Batcher(
                *(loaded, limits, self._places, loaded_copy.run_s, joined),
                batcher.RunHost(recipe.journal_key, loaded_copy.process),
            ),
            platform=signature.platform or recipe.runtime.name,
            needs_details=capabilities.needs_details,
        )

    async def prove_and_release(self, resident: resident_model.ResidentModel) -> None:
        """Find out whether the model keeps rows apart, and end the caller's lease."""
        try:
            await self.proofs.prove(
                self._recipes[resident.key], resident.loaded_copy.loaded, resident.batcher.joining
            )
            self.proofs.judged.update(self._records[resident.key].names)
        finally:
            self._emit(ev.LeaseReleased(resident.key))

    def tell_join_stop(self, resident: resident_model.ResidentModel) -> None:
        """Tell by log and report that a joined run gave another answer. The copy is leased."""
        self.proofs.tell_stop(self._recipes[resident.key], resident.batcher.joining)
        self.proofs.judged.update(self._records[resident.key].names)

    def _record_death(self, key: str, death: process_death.ProcessDeath) -> None:
        self._trials.record_death(key, death)
        self._emit(ev.CopyDied(key, death))

    # Freeing

    def _free(self, key: str) -> None:
        resident, record = self._residents.pop(key), self._records[key]
        loaded_copy = resident.loaded_copy
        self._isolated.end(key)  # its process ends with the close below, which is no death
        self.proofs.remember(key, resident.batcher.joining)
        if self._recipes[key].is_held:
            self._storage.release(self._recipes[key].stored)
        is_detached = bool(record.names) and self._load_queue.detached.can_keep(loaded_copy)
        self.memory.freed_bytes += loaded_copy.freed_bytes
        is_quick = record.booked.host_bytes < QUICK_FREE_BYTES
        if is_quick and loaded_copy.loaded.capabilities.is_steady:
            self._load_queue.free(self._recipes[key], loaded_copy, is_detached=is_detached)
            self._end_free(key, loaded_copy.mapped_bytes, loaded_copy if is_detached else None)
        else:
            self._tasks.spawn(self._free_in_thread(key, loaded_copy, is_detached=is_detached))

    async def _free_in_thread(
        self, key: str, loaded_copy: loader.LoadedCopy, *, is_detached: bool
    ) -> None:
        """Free a copy that may be slow to free, or run a user's code; an error frees it too."""
        kept, mapped_bytes = loaded_copy if is_detached else None, loaded_copy.mapped_bytes
        free = functools.partial(
            self._load_queue.free, self._recipes[key], loaded_copy, is_detached=is_detached
        )
        try:
            await self._loop.run_in_executor(self._free_pool, free)
        except BaseException:
            kept = None
            raise
        finally:
            # Drop the last references before the event, which declares the memory free.
            del loaded_copy, free
            self._end_free(key, mapped_bytes, kept)

    def _end_free(self, key: str, mapped_bytes: int, kept: loader.LoadedCopy | None) -> None:
        self.memory.mapped_bytes -= mapped_bytes
        if mapped_bytes:
            extra_bytes = 0 if kept else self._recipes[key].artifact.size_bytes
            self._emit(ev.LoadOverheadKnown(key, extra_bytes))
        if kept is not None:
            self._emit_dropped(self._load_queue.detached.keep(key, kept))
        self._emit(ev.CopyFreed(key))

    @property
    def detached_bytes(self) -> int:
        """Memory of detached models."""
        return self._load_queue.detached.size_bytes

    def drop_detached(self) -> None:
        """Free the detached models, when memory is short."""
        self._emit_dropped(self._load_queue.detached.clear())

    def _emit_dropped(self, keys: Iterable[str]) -> None:
        """Emit that the next loads of these copies must read their whole artifacts."""
        for key in keys:
            self._emit(ev.LoadOverheadKnown(key, self._recipes[key].artifact.size_bytes))

    def forget_unrecorded(self) -> None:
        """Drop recipes and detached models of copies that `records` no longer has."""
        # The lengths spare each tick a walk through the keys of tens of thousands of copies.
        if len(self._recipes) > len(self._records):
            for key in [key for key in self._recipes if key not in self._records]:
                del self._recipes[key]
                self._load_queue.detached.drop(key)

    def measure_memory(self) -> ev.MemoryMeasured:
        """Return the memory of all copies' processes; kill those that take others' memory."""
        own_bytes = self._meter.private_bytes()
        self._trials.note_memory(own_bytes, is_loading=self._load_queue.is_loading)
        outside_bytes = self._isolated.measure(self._records, own_bytes)
        return self.memory.measure(outside_bytes)

    async def trim_memory(self) -> None:
        """Return free pages to the kernel if copies left much behind."""
        if self.memory.is_trim_due():
            await self._loop.run_in_executor(self._trim_pool, self.memory.trim)

    # Moving between host and GPU

    async def _move(self, key: str, move: Callable[[], None], moved: ev.Event) -> None:
        """Offload or onload a copy. If the library raises, the copy is of no use any more."""
        (failure,) = await asyncio.gather(
            self._loop.run_in_executor(self._free_pool, move), return_exceptions=True
        )
        self._emit(moved if failure is None else ev.DeviceMoveFailed(key))

    async def close(self) -> None:
        """Free everything. Threads of loads that hang end with the process."""
        await self._tasks.cancel()
        residents = [resident.loaded_copy for resident in self._residents.values()]
        self._residents.clear()
        await self._isolated.close(residents)
        self._load_queue.close()
        self._run_pool.shutdown(wait=False, cancel_futures=True)
        self._free_pool.shutdown(wait=False, cancel_futures=True)
        self._trim_pool.shutdown(wait=False, cancel_futures=True)
        self.proofs.close()
        await self._storage.close()
