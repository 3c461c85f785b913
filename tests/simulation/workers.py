"""A pool worker in a process of the simulation: the real one, but for its sockets."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from meshserve import tasks
from meshserve.core.values import desired, events, model, reports
from meshserve.worker import load_signal, worker
from meshserve.worker.models import process_memory, run_journal
from tests.simulation import contents, model_processes, simulated_loop


class SimulatedWorker(worker.PoolWorker):
    """A worker of one node. Everything of it must run in its process."""

    def __init__(
        self,
        address: model.ServerAddress,
        settings: desired.WorkerSettings,
        storage: contents.SimulatedStorage,
        next_pid: Callable[[], int],
    ) -> None:
        self.process = simulated_loop.this_process()
        self.memory = contents.MEMORY[self.process] = contents.SimulatedMemory()
        self.storage = storage
        self.is_listening = False
        loop = simulated_loop.current()
        meter = process_memory.ProcessMeter(
            self.memory, self.memory.private_bytes, lambda: loop.time() + self.process.cpu_s
        )
        make_launcher = functools.partial(model_processes.SimulatedLauncher, next_pid=next_pid)
        super().__init__(address, settings, storage, meter, cast("Any", make_launcher))
        self._load_signal = load_signal.LoadSignal(self.host, loop.time, lambda: self.process.cpu_s)
        self.process.on_end.append(self._leave_journal)

    async def start(self) -> model.Endpoint:
        self.host.trials.look_for_deaths()
        self._ticking = [tasks.spawn(tasks.keep(self.host.run, "tick"), "tick")]
        self.is_listening = True
        return model.Endpoint(
            self.address.node, "127.0.0.1", self.process.pid, self.address.socket_path
        )

    async def stop(self) -> None:
        self.is_listening = False
        await super().stop()

    def report(self, since: int = 0) -> reports.WorkerReport:
        return dataclasses.replace(super().report(since), pid=self.process.pid)

    def living(self) -> events.LivingWorker:
        """Return the worker for a controller that begins anew."""
        endpoint = model.Endpoint(
            self.address.node, "127.0.0.1", self.process.pid, self.address.socket_path
        )
        return events.LivingWorker(
            self.address.id, self._settings, endpoint, self.process.pid, self.app.is_ready
        )

    def _leave_journal(self, reason: str) -> None:
        """Leave the journal as another process would: under its pid, and without a lock."""
        path = self._journal.path
        if path is None or not path.exists():
            return
        left = path.with_name(f"{self.address.id}.{self.process.pid}{run_journal.SUFFIX}")
        path.rename(left)
        if reason == "SIGSEGV":
            note = "Fatal Python error: Segmentation fault\n"
            left.with_suffix(run_journal.CRASH_SUFFIX).write_text(note)

    @property
    def journal_folder(self) -> Path | None:
        """Return the folder of all journals of the node."""
        return self._journal.path.parent if self._journal.path else None
