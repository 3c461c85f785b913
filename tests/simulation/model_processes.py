"""Processes of single models, in the place of those that a worker forks."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.values import process_death
from meshserve.worker.models import (
    call_fields,
    isolated_process,
    model_process,
    process_confinement,
    tensor_frames,
)
from tests.simulation import contents, simulated_loop

OVERHEAD_BYTES = 1 << 20
START_S = 0.1


class SimulatedModelProcess:
    """Answers calls as an IsolatedProcess does, by the real server of a model's process."""

    def __init__(self, key: str, process: simulated_loop.SimulatedProcess) -> None:
        self.key = key
        self.pid = process.pid
        self.process = process
        self.death: process_death.ProcessDeath | None = None
        self.stopped_for = ""
        self.mapped_bytes = 0
        self.footprint_bytes = 0
        self._server = model_process._ModelServer()
        self._calls: dict[simulated_loop.Gate, None] = {}
        self.memory = contents.MEMORY[process] = contents.SimulatedMemory()

    def call(
        self,
        fields: Mapping[str, object],
        arrays: Mapping[str, np.ndarray] | None = None,
        timeout_s: float | None = None,
    ) -> tensor_frames.Frame:
        if self.death is not None:
            raise isolated_process.NotRun(str(self.death))
        answers: list[tuple[dict[str, Any], Mapping[str, np.ndarray]]] = []
        gate = simulated_loop.Gate()

        def run() -> None:
            try:
                frame = tensor_frames.Frame(dict(fields), dict(arrays or {}))
                answers.append(self._server._perform(frame))
            except BaseException as error:  # noqa: BLE001 it belongs to the caller
                answers.append((call_fields.describe_error(error), {}))
            gate.open()
            if fields["call"] == "close":
                self.process.end("")

        self._calls[gate] = None
        simulated_loop.current().begin_thread(self.process, run)
        gate.wait(timeout_s)
        del self._calls[gate]
        if not answers:
            return self._no_answer(timeout_s)
        call_fields.raise_error(answers[0][0])
        return tensor_frames.Frame(answers[0][0], dict(answers[0][1]))

    def _no_answer(self, timeout_s: float | None) -> tensor_frames.Frame:
        if self.death is not None:
            raise errors.ModelDied(str(self.death))
        self.stop(f"a call took longer than {timeout_s:g} s")
        raise errors.DeadlineExceeded(
            f"the model has not answered within {timeout_s:g} s; its process was stopped"
        )

    def record_end(self, reason: str) -> None:
        """Note how the process has ended, and end the calls that wait for it."""
        name = reason if reason.startswith("SIG") else ""
        self.death = process_death.ProcessDeath(name, reason=self.stopped_for)
        for gate in list(self._calls):
            gate.open()

    def stop(self, reason: str) -> None:
        if self.death is None and not self.stopped_for:
            self.stopped_for = reason
            self.process.end("SIGKILL")

    def end(self) -> None:
        if self.death is None:
            try:
                self.call({"call": "close"}, timeout_s=isolated_process.CLOSE_S)
            except (errors.ModelDied, errors.DeadlineExceeded):
                self.stop("it did not end")

    def discard(self, reason: str) -> None:
        self.stop(reason)

    def measure_footprint(self) -> int:
        if self.death is not None:
            raise errors.ModelDied(str(self.death))
        self.footprint_bytes = self.memory_bytes()
        return self.footprint_bytes

    def memory_bytes(self) -> int:
        return 0 if self.death is not None else OVERHEAD_BYTES + self.memory.live_bytes


class SimulatedLauncher:
    """Starts processes of models for the worker that makes it; they end with the worker."""

    def __init__(
        self,
        on_death: Callable[[Any], None],
        library_bytes_max: int,
        next_pid: Callable[[], int],
    ) -> None:
        self.library_bytes_max = library_bytes_max
        self.processes: dict[int, SimulatedModelProcess] = {}
        self.proven_runtimes: set[str] = set()
        self._on_death = on_death
        self._next_pid = next_pid
        self._owner = simulated_loop.this_process()
        self._context = contextvars.copy_context()

    def launch(
        self,
        key: str,
        label: str,
        _runtime: str,
        _limits: process_confinement.ProcessLimits,
    ) -> SimulatedModelProcess:
        simulated_loop.work(START_S)
        process = simulated_loop.SimulatedProcess(f"process of {label}", self._next_pid())
        launched = self.processes[process.pid] = SimulatedModelProcess(key, process)
        process.on_end.append(lambda reason: self._end(launched, reason))
        self._owner.on_end.append(lambda _: process.end("SIGKILL"))
        return launched

    def _end(self, launched: SimulatedModelProcess, reason: str) -> None:
        del self.processes[launched.pid]
        launched.record_end(reason)
        self._context.copy().run(self._on_death, launched)

    def server_bytes(self) -> int:
        return OVERHEAD_BYTES

    def close(self) -> None:
        for launched in list(self.processes.values()):
            launched.process.end("SIGKILL")
