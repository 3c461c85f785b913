from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from meshserve.storage import stopped_processes
from tests import support

LIMIT_S = stopped_processes.STOPPED_S


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as started:
        yield started
        started.kill()


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123 - one line
        return file.read().rpartition(")")[2].split()[0]


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    support.wait_until(lambda: state(process.pid) == "T", 60, "it is stopped")


def test_a_process_that_stays_stopped_is_told(process: subprocess.Popen[bytes]) -> None:
    watch = stopped_processes.StoppedProcesses()
    assert watch.look([process.pid], 0.0) == []
    stop(process)
    assert watch.look([process.pid], 1.0) == []
    assert watch.look([process.pid], 1.0 + LIMIT_S - 0.01) == []
    assert watch.look([process.pid], 1.0 + LIMIT_S) == [process.pid]


def test_one_that_goes_on_meanwhile_is_not(process: subprocess.Popen[bytes]) -> None:
    watch = stopped_processes.StoppedProcesses()
    stop(process)
    watch.look([process.pid], 0.0)
    process.send_signal(signal.SIGCONT)
    support.wait_until(lambda: state(process.pid) != "T", 60, "it goes on")
    assert watch.look([process.pid], LIMIT_S) == []
    stop(process)
    assert watch.look([process.pid], 2 * LIMIT_S) == []


def test_dead_and_running_processes_are_not_stopped(process: subprocess.Popen[bytes]) -> None:
    watch = stopped_processes.StoppedProcesses()
    process.kill()
    process.wait()
    for now_s in (0.0, 10.0):
        assert watch.look([process.pid, os.getpid()], now_s) == []
