"""A whole worker without Ray: its host, its app, its sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os

from meshserve import tasks
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import catalog_sync, desired, model, reports
from meshserve.protocol import asgi_server
from meshserve.worker import load_signal, worker_report
from meshserve.worker.http import worker_app
from meshserve.worker.models import allocators, model_host, process_memory


class PoolWorker:
    """Serves one pool's models in this process. Made and used inside one running event loop."""

    def __init__(
        self,
        address: model.ServerAddress,
        told: desired.WorkerSettings,
        storage: model_runtime.Storage,
    ) -> None:
        allocators.current().tune()
        self.address = address
        self.host = model_host.ModelHost(told, storage)
        self._pages = worker_report.ReportPages(self.host)
        self._demands = load_signal.LoadSignal(self.host)
        self.app = worker_app.WorkerApp(self.host, address.id)
        self._serving: asgi_server.RunningServer | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> model.Endpoint:
        """Listen on a Unix socket and on a free TCP port; returns where."""
        sockets = [
            asgi_server.unix_socket(self.address.socket_path),
            asgi_server.tcp_socket(self.address.host),
        ]
        self._serving = await asgi_server.serve(self.app, sockets, at_once=self.app.at_once)
        self._ticking = tasks.spawn(self.host.run(), "tick")
        process_memory.calm_collector()
        return model.Endpoint(
            self.address.node, self.address.host, self._serving.port, self.address.socket_path
        )

    def apply(self, step: catalog_sync.SyncStep) -> None:
        """Take a step of the catalog in. Raises catalog_sync.MissedStep if one before it is missing."""
        self.host.apply(step)
        self.app.is_synced = self.host.replica.is_complete

    async def ensure_loaded(self, id_: model.ModelId, timeout_s: float) -> None:
        """Return once the model is in memory. Raises why it can't be."""
        await self.host.ensure_loaded(id_, timeout_s)

    def report(self, since: int = 0) -> reports.WorkerReport:
        """How it is now, and what has changed of its copies since its report `since`; all of them where that was not its last."""
        page = self._pages.next(since)
        state: reports.WorkerState = (
            "draining" if self.app.is_draining else "ready" if self.app.is_synced else "starting"
        )
        return reports.WorkerReport(
            worker_id=self.address.id,
            pid=os.getpid(),
            node=self.address.node,
            state=state,
            revision=self.host.replica.revision,
            budget=self.host.settings.memory,
            booked=self.host.residency.account.booked,
            private_bytes=process_memory.private_bytes(),
            counters=worker_report.counters(self.host, self.app.load),
            number=page.number,
            since=page.since,
            copies=page.copies,
            gone=page.gone,
            has_more=page.has_more,
            measured=worker_report.learned(self.host),
            demands=self._demands.take(),
        )

    def copies(self, ids: tuple[model.ModelId, ...]) -> tuple[reports.CopyReport, ...]:
        """How its copies of these models are now; nothing for those that it has none of."""
        return worker_report.copies(self.host, ids)

    async def drain(self, timeout_s: float) -> None:
        """Say that no more shall come, and wait until every request that came is answered, or the time is over."""
        self.app.is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.app.wait_until_idle()

    async def stop(self) -> None:
        """End: no socket, file or task is left."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        if self._serving is not None:
            await self._serving.stop()
        await self.host.close()
