"""One worker without Ray: its models, its application and its sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping

from meshserve import tasks
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import catalog_sync, desired, model, model_stats, reports
from meshserve.protocol import first_byte, handler_server, http_protocol, paths, sockets
from meshserve.worker import load_signal, use_signal, worker_report
from meshserve.worker.http import inference_rest, worker_app, worker_metrics
from meshserve.worker.models import (
    copy_effects,
    isolated_copies,
    model_host,
    process_launcher,
    process_memory,
    run_journal,
    surroundings,
)


class PoolWorker:
    """Serves one pool's models in this process, inside the event loop that creates it."""

    def __init__(
        self,
        address: model.ServerAddress,
        settings: desired.WorkerSettings,
        storage: model_runtime.Storage,
        meter: process_memory.ProcessMeter = process_memory.OWN,
        make_launcher: isolated_copies.MakeLauncher = process_launcher.ProcessLauncher,
    ) -> None:
        meter.allocator.tune()
        self.address = address
        run_journal.remove_stale(time.time())
        self._journal = run_journal.RunJournal(run_journal.folder(address.run_dir), address.id)
        outside = surroundings.Surroundings(storage, meter, make_launcher)
        self.host = model_host.ModelHost(settings, outside, self._journal)
        load = worker_app.WorkerLoad()
        metrics = worker_metrics.WorkerMetrics(self.host, load, address.id)
        self.app = worker_app.WorkerApp(
            self.host,
            load,
            inference_rest.InferenceRest(self.host).answer,
            {paths.METRICS: metrics.page},
        )
        self._settings = settings
        self._meter = meter
        self._report_pages = worker_report.ReportPages(self.host)
        self._report_events = worker_report.ReportEvents(self.host)
        self._report_figures = worker_report.ReportFigures(self.host)
        self._load_signal = load_signal.LoadSignal(self.host)
        self._use_signal = use_signal.UseSignal(self.host)
        self._server: handler_server.HandlerServer | None = None
        self._ticking: list[asyncio.Task[None]] = []

    async def start(self) -> model.Endpoint:
        """Listen on a Unix socket, for other nodes on a free TCP port too; return the endpoint."""
        address = self.address
        # What its former process ran must be known before the first request.
        self.host.trials.look_for_deaths()
        listeners = sockets.server_sockets(address.socket_path, address.host, address.secret)
        self._server = await http_protocol.serve(
            self.app.handle, listeners, first_byte.maker(address.secret)
        )
        loops = {"tick": self.host.run, "use": self._use_signal.run}
        self._ticking = [tasks.spawn(tasks.keep(loop, name), name) for name, loop in loops.items()]
        # Last: objects that exist until now are never scanned by the garbage collector again.
        process_memory.calm_collector()
        return model.Endpoint(address.node, address.host, self._server.port, address.socket_path)

    def apply(self, step: catalog_sync.SyncStep) -> None:
        """Apply a step of the catalog. Raises catalog_sync.MissedStep if one before is missing."""
        self.host.apply(step)
        # A worker with only a part of the catalog would answer "not found" for existing models.
        self.app.is_synced = self.host.catalog_follower.is_complete

    async def ensure_loaded(self, id_: model.ModelId, timeout_s: float) -> None:
        """Return once the model is in memory. Raises DeadlineExceeded, or why it is not loaded."""
        await self.host.ensure_loaded(id_, timeout_s)

    def report(self, since: int = 0) -> reports.WorkerReport:
        """Return the worker's state, and what changed of its copies since its report `since`.

        All copies are in it if `since` was not the last report.
        """
        page = self._report_pages.next(since)
        state: reports.WorkerState = (
            "draining" if self.app.is_draining else "ready" if self.app.is_synced else "starting"
        )
        return reports.WorkerReport(
            worker_id=self.address.id,
            pid=os.getpid(),
            node=self.address.node,
            state=state,
            revision=self.host.catalog_follower.revision,
            budget=self._settings.memory,
            booked=self.host.residency.account.booked,
            private_bytes=self._meter.private_bytes(),
            counters=worker_report.counters(self.host, self.app.load),
            number=page.number,
            since=page.since,
            copies=page.copies,
            gone=page.gone,
            has_more=page.has_more,
            measured=worker_report.take_measurements(self.host),
            demands=self._load_signal.take(),
            deaths=self.host.trials.recent_deaths(),
            trials=self.host.trials.findings(self.host.catalog_follower.catalog),
            hung=self.host.trials.ailing.hung(),
            join_stops=self.host.proofs.stops(),
            run_threads=copy_effects.RUN_THREADS,
            hogs=self.host.trials.ailing.hogs(),
            excess_s=self.host.trials.ailing.excess_s,
            events=self._report_events.next(page.since, asyncio.get_running_loop().time()),
            use=self._use_signal.take(),
            figures=self._report_figures.next(has_arrived=bool(page.since)),
            busy=self._report_figures.busy(self.app.open),
        )

    def copies(self, ids: tuple[model.ModelId, ...]) -> tuple[reports.CopyReport, ...]:
        """Return a report, with details, of each of these models that has a copy here, or had."""
        return worker_report.copies(self.host, ids, asyncio.get_running_loop().time())

    def stats(self) -> Mapping[model.ModelId, model_stats.ModelStats]:
        """Return the counters of every model that had a request here."""
        return self.host.stats

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests, and wait at most `timeout_s` for those that came before."""
        self.app.is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.app.wait_until_idle()

    async def stop(self) -> None:
        """Close the sockets, end the tasks, free the models."""
        for ticking in self._ticking:
            ticking.cancel()
        await asyncio.gather(*self._ticking, return_exceptions=True)
        # The sockets are closed before the models, which requests in progress still need.
        if self._server is not None:
            await self._server.stop()
        await self.host.close()
        # Last: until here a crash must be noted for the other workers.
        self._journal.close()

    def note_crashes(self) -> None:
        """Have Python note in a file, for the other workers, by what signal this process ends."""
        self._journal.note_crashes()
