"""Calls to a process that dies, hangs up or talks nonsense end with its death as their error."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from meshserve import errors
from meshserve.worker.models import isolated_model, isolated_process, process_launcher
from tests import support
from tests.runtimes import contract
from tests.worker.models import test_isolated_model

HOSTILE = """
import os, pickle, socket, struct

class Model:
    inputs = [("x", "INT64", [-1])]
    outputs = [("y", "INT64", [-1])]

    def predict(self, inputs):
        kind = inputs["x"].flat[0]
        if kind == 701: os.closerange(3, 100)
        if kind == 702: self.write(b"\\xff" * 64)
        if kind == 703: self.write(struct.pack("<I", 2) + b"[]")
        if kind == 704 and not os.fork(): os._exit(0)
        if kind == 705:
            if not os.fork():
                os.setsid()
                import time; time.sleep(5)
                os._exit(0)
            os._exit(7)
        if kind == 706: os.kill(os.getpid(), 15)
        return {"y": inputs["x"]}

    def write(self, data):
        for name in os.listdir("/proc/self/fd"):
            try: socket.socket(fileno=os.dup(int(name))).sendall(data)
            except OSError: pass
"""


@pytest.fixture(scope="module")
def launcher() -> Iterator[process_launcher.ProcessLauncher]:
    launcher = process_launcher.ProcessLauncher(lambda _: None)
    yield launcher
    launcher.close()


@pytest.fixture
def runtime(
    launcher: process_launcher.ProcessLauncher, tmp_path: Path
) -> isolated_model.IsolatedRuntime:
    (tmp_path / "model.py").write_text(HOSTILE)
    return test_isolated_model.isolated(launcher, "python")


def loaded(runtime: isolated_model.IsolatedRuntime, folder: Path) -> isolated_model.IsolatedModel:
    return runtime.load(contract.artifact(folder), contract.spec(trust=True), "cpu")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (1, "exit code 0"),
        (2, "sent what is no answer"),
        (3, "sent what is no answer"),
        (5, "exit code 7"),
        (6, "SIGTERM"),
    ],
)
def test_a_process_that_breaks_its_connection_is_dead(
    runtime: isolated_model.IsolatedRuntime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: int,
    words: str,
) -> None:
    monkeypatch.setattr(isolated_process, "DEATH_TOLD_S", 1.0)
    model = loaded(runtime, tmp_path)
    with pytest.raises(errors.ModelDied, match=words):
        model.predict({"x": np.array([700 + kind])}, ())
    model.close()


def test_a_model_may_fork(runtime: isolated_model.IsolatedRuntime, tmp_path: Path) -> None:
    model = loaded(runtime, tmp_path)
    np.testing.assert_array_equal(model.predict({"x": np.array([704])}, ())["y"], [704])
    model.close()


def test_a_call_that_waits_is_ended_by_a_death(
    runtime: isolated_model.IsolatedRuntime, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text(test_isolated_model.SLOW)
    model = loaded(runtime, tmp_path)
    raised: list[Exception] = []

    def spin() -> None:
        try:
            model.predict({"x": np.array([700])}, ())
        except errors.ModelDied as error:
            raised.append(error)

    thread = threading.Thread(target=spin)
    thread.start()
    process = runtime.process
    assert process is not None
    support.wait_until(lambda: bool(process._busy))
    process.stop("someone asked for it")
    thread.join(10)
    assert [str(error) for error in raised] == [
        "the model's process was stopped: someone asked for it"
    ]
    model.close()


def test_the_memory_of_a_process_is_measured_without_what_it_shares(
    runtime: isolated_model.IsolatedRuntime, tmp_path: Path
) -> None:
    model = loaded(runtime, tmp_path)
    process = runtime.process
    assert process is not None
    footprint_bytes = process.measure_footprint()
    assert 1 << 20 < footprint_bytes < 40 << 20
    assert abs(process.memory_bytes() - footprint_bytes) < 4 << 20
    os.kill(process.pid, signal.SIGKILL)
    support.wait_until(lambda: process.death is not None)
    assert process.memory_bytes() == 0
    with pytest.raises(errors.ModelDied, match="SIGKILL"):
        process.measure_footprint()
    model.close()


def test_a_process_that_nobody_refers_to_leaves_no_connection_open() -> None:
    control, connection = socket.socketpair()
    isolated_process.IsolatedProcess("k", control, connection, lambda _: None)
    assert (control.fileno(), connection.fileno()) == (-1, -1)
