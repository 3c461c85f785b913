"""The actor that holds one pool worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from meshserve import errors
from meshserve.cluster import actor_process
from meshserve.core.values import catalog_sync, desired, events, model, model_stats, reports
from meshserve.worker import worker

WorkerMaker = Callable[[model.ServerAddress, desired.WorkerSettings], worker.PoolWorker]


class WorkerActor:
    """Passes the controller's calls on to one pool worker.

    Every method but `live` and `start` raises Unavailable before the worker has started.
    """

    def __init__(
        self,
        make: WorkerMaker,
        address: model.ServerAddress,
        settings: desired.WorkerSettings,
    ) -> None:
        self._make = make
        self._address = actor_process.placed(address)
        self._settings = settings
        self._endpoint: model.Endpoint | None = None
        self._worker: worker.PoolWorker | None = None

    @property
    def _started(self) -> worker.PoolWorker:
        if self._worker is None:
            raise errors.Unavailable(f"worker {self._address.id} is not started")
        return self._worker

    @actor_process.errors_as_values
    async def start(self) -> events.WorkerStarted:
        """Build and start the worker; return its endpoint and process id once it listens."""
        actor_process.make_run_dir(self._address.run_dir)
        self._worker = self._make(self._address, self._settings)
        self._worker.note_crashes()
        self._endpoint = await self._worker.start()
        return events.WorkerStarted(self._address.id, self._endpoint, os.getpid())

    @actor_process.errors_as_values
    async def living(self) -> events.LivingWorker:
        """Return the worker for a restarted controller. Raises Unavailable before the start."""
        if self._endpoint is None:
            raise errors.Unavailable(f"worker {self._address.id} is not started")
        # A controller that begins anew adopts it as ready only if it has its whole catalog.
        is_ready = self._started.app.is_synced and not self._started.app.is_draining
        return events.LivingWorker(
            self._address.id, self._settings, self._endpoint, os.getpid(), is_ready
        )

    async def live(self) -> None:
        """Never return: the pending call fails at the caller as soon as this process ends."""
        # Ray gives no other event for the end of an actor.
        await asyncio.Event().wait()

    @actor_process.errors_as_values
    async def send_changes(self, step: catalog_sync.SyncStep) -> None:
        """Apply one step of the catalog."""
        self._started.apply(step)

    @actor_process.errors_as_values
    async def ensure_loaded(self, id_: model.ModelId, timeout_s: float) -> None:
        """Return once the model is in memory."""
        await self._started.ensure_loaded(id_, timeout_s)

    @actor_process.errors_as_values
    async def unload(self, id_: model.ModelId) -> None:
        """Evict the worker's copy of the model."""
        self._started.host.unload(id_)

    @actor_process.errors_as_values
    async def pin(self, id_: model.ModelId, is_pinned: bool) -> None:
        """Pin the worker's copy of the model, which protects it from eviction, or unpin it."""
        self._started.host.set_pinned(id_, is_pinned)

    @actor_process.errors_as_values
    async def copies(self, ids: tuple[model.ModelId, ...]) -> tuple[reports.CopyReport, ...]:
        """Return the present state of the worker's copies of these models."""
        return self._started.copies(ids)

    @actor_process.errors_as_values
    async def report(self, since: int) -> reports.WorkerReport:
        """Return the worker's state and the copies that changed since report number `since`."""
        return self._started.report(since)

    @actor_process.errors_as_values
    async def stats(self) -> dict[model.ModelId, model_stats.ModelStats]:
        """Return the request statistics of every model since the process began."""
        return dict(self._started.stats())

    @actor_process.errors_as_values
    async def stop(self) -> None:
        """Answer the accepted requests, then stop the worker."""
        if self._worker is not None:
            await self._worker.drain(actor_process.DRAIN_S)
            await self._worker.stop()
            actor_process.leave_run_dir(self._address.run_dir)
