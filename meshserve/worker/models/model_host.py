"""Performs what residency decides: fetches, loads, frees, and wakes whoever waited. Lives on one event loop."""

from __future__ import annotations

import asyncio
import collections
import functools
import os
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from meshserve import errors, tasks
from meshserve.core.interfaces import model_runtime
from meshserve.core.memory import copies, eviction, residency
from meshserve.core.memory import residency_events as ev
from meshserve.core.values import catalog, catalog_sync, desired, model, model_stats
from meshserve.worker.models import (
    allocators,
    batcher,
    detached,
    load_queue,
    loader,
    process_memory,
)

TICK_S = 0.25
TRIM_AFTER_BYTES = 32 << 20
SHORT_SHARE = 0.9
QUICK_FREE_BYTES = 32 << 20
HELD_BYTES_MIN = 1 << 20
RUN_THREADS_MAX = 64


@dataclass(slots=True)
class ResidentModel:
    """A copy in memory, ready to run."""

    key: str
    spec: model.ModelSpec
    made: loader.LoadedCopy
    signature: model.Signature
    runner: batcher.Batcher
    platform: str


class ModelHost:
    """One worker's models: its catalog, its residency, and the memory behind them."""

    def __init__(self, told: desired.WorkerSettings, storage: model_runtime.Storage) -> None:
        self.settings = told
        self.replica = catalog_sync.CatalogFollower()
        limits = copies.WorkerLimits(
            told.memory, told.loads_parallel, told.queue_max, told.idle_unload_s
        )
        self.residency = residency.Residency(limits, eviction.POLICIES[told.eviction])
        self.tallies: collections.defaultdict[model.ModelId, model_stats.ModelStats] = (
            collections.defaultdict(model_stats.ModelStats)
        )
        self.asked: collections.defaultdict[model.ModelId, int] = collections.defaultdict(int)
        self.learned: dict[model.ModelId, model.Measured] = {}
        self.news: dict[model.ModelId, model.Measured] = {}
        self._storage = storage
        self._asked_for: dict[model.ModelId, model.ModelSpec] = {}
        self._loading = load_queue.LoadQueue(int(told.memory.host_bytes * detached.SHARE_MAX))
        self._recipes: dict[str, loader.LoadRecipe] = {}
        self._residents: dict[str, ResidentModel] = {}
        self._waiting: dict[ev.Ticket, asyncio.Future[ResidentModel]] = {}
        self._events: collections.deque[ev.Event] = collections.deque()
        self._is_handling = False
        self._freed_bytes = 0
        self.mapped_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._run_pool = ThreadPoolExecutor(RUN_THREADS_MAX, "run")
        self._free_pool = ThreadPoolExecutor(1, "free")
        self._loop = asyncio.get_running_loop()

    # What is served

    @property
    def served(self) -> catalog.Catalog:
        """What is to be served."""
        return self.replica.catalog

    def apply(self, step: catalog_sync.SyncStep) -> None:
        """Take a step of the catalog in; copies of what changed or went are dropped as soon as nobody uses them. Raises catalog_sync.MissedStep."""
        for change in self.replica.apply(step):
            if isinstance(change, catalog.ModelWithdrawn):
                self._forget_model(change.id, is_replaced=False)
            elif isinstance(change, catalog.ModelDeclared):
                old = self._asked_for.get(change.spec.id)
                if old is not None and not catalog_sync.can_share_copy(old, change.spec):
                    self._forget_model(change.spec.id, is_replaced=True)

    def _forget_model(self, id_: model.ModelId, *, is_replaced: bool) -> None:
        self._asked_for.pop(id_, None)
        self.learned.pop(id_, None)
        self._handle(ev.ModelForgotten(id_, is_replaced))

    # Leases

    def at_hand(self, id_: model.ModelId) -> ResidentModel | None:
        """The model's copy if it can be run this moment. Whoever runs it says `used` before anything else can happen."""
        key = self.residency.find_ready(id_)
        return None if key is None else self._residents[key]

    def used(self, resident: ResidentModel) -> None:
        """The copy at hand was run."""
        self.residency.record_use(resident.key, self._loop.time())

    def lease_now(self, id_: model.ModelId) -> ResidentModel | None:
        """A lease if the model is ready this moment, else None."""
        key = self.residency.lease(id_, self._loop.time())
        return None if key is None else self._residents[key]

    async def lease(self, id_: model.ModelId, expires_s: float) -> ResidentModel:
        """A lease on the model's copy, which is loaded first if need be. `expires_s` is on the event loop's clock.

        Raises DeadlineExceeded, or why the model can't be had. Whoever gets a lease owes a `release`.
        """
        ticket = object()
        answer: asyncio.Future[ResidentModel] = self._loop.create_future()
        self._waiting[ticket] = answer
        self._handle(ev.LeaseRequested(ticket, id_))
        try:
            async with asyncio.timeout_at(expires_s):
                return await answer
        except TimeoutError:
            raise errors.DeadlineExceeded(
                f"the deadline passed while model {id_} was loading"
            ) from None
        finally:
            if self._waiting.pop(ticket, None) is not None:
                self._handle(ev.RequesterLeft(ticket))

    def release(self, resident: ResidentModel) -> None:
        """End a lease."""
        self._handle(ev.LeaseReleased(resident.key))

    # Wishes

    async def ensure_loaded(self, id_: model.ModelId, timeout_s: float) -> None:
        """Return once the model is in memory. Raises as `lease` does."""
        resident = self.lease_now(id_) or await self.lease(id_, self._loop.time() + timeout_s)
        self.release(resident)

    def unload(self, id_: model.ModelId) -> None:
        """Free the model's copy as soon as nobody uses it."""
        self._handle(ev.UnloadRequested(id_))

    def set_pinned(self, id_: model.ModelId, is_pinned: bool) -> None:
        """Keep the model once it is there, or no longer."""
        self._handle(ev.PinSet(id_, is_pinned))

    def has_failed(self, id_: model.ModelId) -> bool:
        """Whether the last try to have the model failed."""
        binding = self.residency.bindings.get(id_)
        if binding is None:
            return False
        if binding.key is None:
            return binding.failure is not None and not binding.is_fetching
        return self.residency.copies[binding.key].failure is not None

    def footprint(self, id_: model.ModelId) -> model.Footprint:
        """What the model's copy has booked now."""
        binding = self.residency.bindings.get(id_)
        return (
            self.residency.copies[binding.key].booked
            if binding and binding.key is not None
            else model.Footprint()
        )

    @property
    def kept_bytes(self) -> int:
        """What is kept in memory of copies that left."""
        return self._loading.skeletons.size_bytes

    # Life

    async def run(self) -> None:
        """Keep time and watch memory until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            if self._freed_bytes >= TRIM_AFTER_BYTES:
                self._freed_bytes = 0
                await self._loop.run_in_executor(self._free_pool, allocators.current().trim)
            self._handle(self._memory_seen())
            self._handle(ev.TimerFired())
            self._forget_gone()
            if self.residency.is_short:
                self._not_kept(self._loading.skeletons.clear())

    def _memory_seen(self) -> ev.MemoryMeasured:
        taken_bytes = process_memory.private_bytes() + self.mapped_bytes
        is_short = taken_bytes > SHORT_SHARE * self.settings.memory.host_bytes
        return ev.MemoryMeasured(taken_bytes, allocators.current().free_bytes() if is_short else 0)

    async def close(self) -> None:
        """Give everything back. Loads that hang are left to the end of the process."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for resident in self._residents.values():
            resident.made.loaded.close()
        self._residents.clear()
        self._loading.close()
        self._run_pool.shutdown(wait=False, cancel_futures=True)
        self._free_pool.shutdown(wait=False, cancel_futures=True)
        await self._storage.close()

    # Commands

    def _handle(self, event: ev.Event) -> None:
        """Feed an event, and those that come of its commands, to the core in order."""
        self._events.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        try:
            while self._events:
                for command in self.residency.handle(self._events.popleft(), self._loop.time()):
                    self._perform(command)
        finally:
            self._is_handling = False

    def _perform(self, command: ev.Command) -> None:
        match command:
            case ev.GrantLease(ticket, key):
                self._grant(ticket, key)
            case ev.RefuseLease(ticket, error):
                self._waiting.pop(ticket).set_exception(error)
            case ev.FetchArtifact():
                self._spawn(self._fetch(command))
            case ev.LoadCopy(key):
                self._spawn(self._load(key))
            case ev.FreeCopy(key):
                self._free(key)
            case ev.OffloadCopy(key):
                offload = self._residents[key].made.loaded.offload
                self._spawn(self._move(key, offload, ev.CopyOffloaded(key)))
            case ev.OnloadCopy(key):
                onload = self._residents[key].made.loaded.onload
                self._spawn(self._move(key, onload, ev.CopyOnloaded(key)))

    def _grant(self, ticket: ev.Ticket, key: str) -> None:
        answer = self._waiting.pop(ticket)
        if answer.done():
            self._events.append(ev.LeaseReleased(key))
        else:
            answer.set_result(self._residents[key])

    async def _fetch(self, command: ev.FetchArtifact) -> None:
        declared = self.served.declared(command.id)
        if declared is None:
            self._handle(
                ev.FetchFailed(
                    command.id,
                    command.attempt,
                    errors.ModelNotFound(f"model {command.id} is not registered"),
                )
            )
            return
        self._asked_for[command.id] = declared.spec
        try:
            artifact = await self._storage.fetch(declared.spec.uri, declared.spec.checksum)
            recipe = loader.recipe(declared.spec, artifact, self.settings.device)
        except errors.MeshError as error:
            self._handle(ev.FetchFailed(command.id, command.attempt, error))
            return
        self._recipes[recipe.key] = recipe
        self._handle(self._fetched(command, declared, recipe))

    def _fetched(
        self, command: ev.FetchArtifact, declared: catalog.ModelDeclared, recipe: loader.LoadRecipe
    ) -> ev.ArtifactFetched:
        known = self.learned.get(command.id) or declared.measured
        is_known = known is not None and known.digest == recipe.artifact.digest
        need = (
            known.footprint
            if known and is_known
            else recipe.runtime.footprint_hint(recipe.artifact, recipe.device)
        )
        return ev.ArtifactFetched(
            id=command.id,
            attempt=command.attempt,
            key=recipe.key,
            need=need,
            load_s=known.load_s if known and is_known else 0.0,
            can_offload=recipe.device != "cpu" and recipe.runtime.can_offload,
            load_timeout_s=declared.spec.load_timeout_s,
            load_extra_bytes=0
            if recipe.key in self._loading.skeletons
            else recipe.artifact.size_bytes,
        )

    async def _load(self, key: str) -> None:
        recipe = self._recipes[key]
        copy = self.residency.copies[key]
        try:
            await self._check_unchanged(recipe)
            made = await self._made(recipe, copy.need)
        except errors.MeshError as error:
            if isinstance(error, _ArtifactChanged):
                for id_ in tuple(copy.names):
                    self._forget_model(id_, is_replaced=True)
            self._handle(ev.CopyLoadFailed(key, error))
            return
        self._residents[key] = self._resident(recipe, made)
        self.mapped_bytes += made.mapped_bytes
        if made.is_measured:
            measured = model.Measured(recipe.artifact.digest, made.footprint, made.load_s)
            fresh = {
                id_: measured for id_ in copy.names if not measured.is_known(self.learned.get(id_))
            }
            self.learned.update(fresh)
            self.news.update(fresh)
        self._handle(ev.CopyLoaded(key, made.footprint, made.load_s))

    async def _made(self, recipe: loader.LoadRecipe, need: model.Footprint) -> loader.LoadedCopy:
        if not _needs_files(recipe):
            return await self._loading.load(recipe, need)
        self._storage.hold(recipe.artifact)
        try:
            return await self._loading.load(recipe, need)
        except BaseException:
            self._storage.release(recipe.artifact)
            raise

    async def _check_unchanged(self, recipe: loader.LoadRecipe) -> None:
        """The bytes that the copy's key promises must be here still: the cache may have let them go, or somebody may have changed them."""
        spec = recipe.spec
        artifact = await self._storage.fetch(spec.uri, spec.checksum)
        if artifact.digest != recipe.artifact.digest:
            raise _ArtifactChanged(
                "the artifact has changed since it was first read; it is read anew",
                retry_after_s=0.0,
            )

    def take_asked(self) -> dict[model.ModelId, int]:
        """How many requests each model got since somebody last took them."""
        asked, self.asked = self.asked, collections.defaultdict(int)
        return asked

    def _resident(self, recipe: loader.LoadRecipe, made: loader.LoadedCopy) -> ResidentModel:
        signature, capabilities = made.loaded.signature, made.loaded.capabilities
        can_join = signature.can_join and recipe.spec.batching
        limits = _limits(
            rows_max=recipe.spec.max_batch_size if can_join else 1,
            queue_max=self.settings.queue_max,
            parallel=(os.cpu_count() or 1) if capabilities.is_reentrant and not can_join else 1,
            is_steady=capabilities.is_steady,
        )
        running = batcher.Batcher(made.loaded, limits, self._run_pool, made.run_s)
        return ResidentModel(
            recipe.key,
            recipe.spec,
            made,
            signature,
            running,
            signature.platform or recipe.runtime.name,
        )

    def _free(self, key: str) -> None:
        resident = self._residents.pop(key)
        if _needs_files(self._recipes[key]):
            self._storage.release(self._recipes[key].artifact)
        copy = self.residency.copies[key]
        is_kept = bool(copy.names) and self._loading.skeletons.fits(resident.made)
        self._freed_bytes += copy.booked.host_bytes - resident.made.mapped_bytes
        is_steady = resident.made.loaded.capabilities.is_steady
        if copy.booked.host_bytes < QUICK_FREE_BYTES and is_steady:
            self._loading.let_go(resident.made, is_kept=is_kept)
            self._left(key, resident.made.mapped_bytes, resident.made if is_kept else None)
            return
        self._spawn(self._let_go(key, resident.made, is_kept=is_kept))

    async def _let_go(self, key: str, made: loader.LoadedCopy, *, is_kept: bool) -> None:
        """This may be slow or a user's code: it is done in a thread, and whatever it raises the copy is gone."""
        kept, mapped_bytes = made if is_kept else None, made.mapped_bytes
        try:
            await self._loop.run_in_executor(
                self._run_pool, functools.partial(self._loading.let_go, made, is_kept=is_kept)
            )
        except BaseException:
            kept = None
            raise
        finally:
            del made
            self._left(key, mapped_bytes, kept)

    def _left(self, key: str, mapped_bytes: int, kept: loader.LoadedCopy | None) -> None:
        """A copy's memory is free, but for what is kept of it."""
        self.mapped_bytes -= mapped_bytes
        if mapped_bytes:
            self._handle(
                ev.LoadOverheadKnown(key, 0 if kept else self._recipes[key].artifact.size_bytes)
            )
        if kept is not None:
            self._not_kept(self._loading.skeletons.keep(key, kept))
        self._handle(ev.CopyFreed(key))

    def _not_kept(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._handle(ev.LoadOverheadKnown(key, self._recipes[key].artifact.size_bytes))

    def _forget_gone(self) -> None:
        """Nothing is kept of copies that no model means any more."""
        there = self.residency.copies
        if len(self._recipes) > len(there):
            for key in [key for key in self._recipes if key not in there]:
                del self._recipes[key]
                self._loading.skeletons.drop(key)

    async def _move(self, key: str, step: Callable[[], None], then: ev.Event) -> None:
        """Offload or onload the copy. If the library raises, the copy is of no use on either device."""
        (failure,) = await asyncio.gather(
            self._loop.run_in_executor(self._run_pool, step), return_exceptions=True
        )
        self._handle(then if failure is None else ev.DeviceMoveFailed(key))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = tasks.spawn(work, "model host")
        self._tasks.add(task)
        task.add_done_callback(functools.partial(_forget, self._tasks))


def _needs_files(recipe: loader.LoadRecipe) -> bool:
    """Whether the artifact must be held while the copy lives. A small one that is only read once is loaded long before it could go.

    A hold makes a file and removes one, which may take longer than the load.
    """
    return recipe.artifact.size_bytes >= HELD_BYTES_MIN or recipe.runtime.needs_files


_limits = functools.lru_cache(maxsize=1024)(batcher.BatchLimits)
"""Equal limits are one object, however many copies have them."""


class _ArtifactChanged(errors.LoadFailed):
    """The file behind a copy is not the file that it was made of."""


def _forget(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    tasks.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
