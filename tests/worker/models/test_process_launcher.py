"""The launcher leaves nothing behind: no process, no descriptor, no thread."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshserve import errors
from meshserve.core.values import process_death
from meshserve.logs import run_context
from meshserve.worker.models import (
    fork_server,
    isolated_process,
    process_confinement,
    process_launcher,
)
from tests import support

STARTS = 200
NO_LIMITS = process_confinement.NO_LIMITS


class Started:
    """A launcher and the processes that it has told the deaths of."""

    def __init__(self) -> None:
        self.dead: list[isolated_process.IsolatedProcess] = []
        self.launcher = process_launcher.ProcessLauncher(self.dead.append)

    def launch(self, key: str = "k") -> isolated_process.IsolatedProcess:
        return self.launcher.launch(key, run_context.RunLabels("m", "1"), "python", NO_LIMITS)


@pytest.fixture
def started() -> Iterator[Started]:
    starting = Started()
    yield starting
    starting.launcher.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_starts_and_ends_leave_nothing_behind(started: Started) -> None:
    started.launch().discard("the first one starts the fork server")
    before, threads = descriptors(), threading.active_count()
    pids = []
    for number in range(STARTS):
        process = started.launch(str(number))
        pids.append(process.pid)
        process.discard("enough") if number % 2 else process.end()
    support.wait_until(lambda: len(started.dead) == STARTS + 1)
    support.wait_until(lambda: descriptors() <= before)
    assert not any(map(is_running, pids))
    assert threading.active_count() <= threads
    assert started.launcher.processes == {}


def test_a_launcher_that_closes_refuses_starts_and_leaves_no_descriptor() -> None:
    before = descriptors()
    starting = Started()
    starting.launch().discard("the fork server has started")

    def launch_often() -> None:
        while True:
            starting.launch().discard("enough")

    def launch_until_refused() -> None:
        with pytest.raises(errors.LoadFailed, match=r"closing|has ended"):
            launch_often()

    threads = [threading.Thread(target=launch_until_refused) for _ in range(4)]
    for thread in threads:
        thread.start()
    starting.launcher.close()
    launch_until_refused()
    for thread in threads:
        thread.join()
    support.wait_until(lambda: descriptors() <= before)


def test_a_closed_launcher_has_no_process_and_no_descriptor() -> None:
    before = descriptors()
    starting = Started()
    processes = [starting.launch(), starting.launch()]
    starting.launcher.close()
    assert [str(process.death) for process in processes] == 2 * [
        "the model's process was stopped: the program that started it has ended"
    ]
    support.wait_until(lambda: not any(is_running(process.pid) for process in processes))
    for process in processes:
        process.end()
    support.wait_until(lambda: descriptors() <= before)


def test_a_fork_server_that_is_killed_is_started_again(started: Started) -> None:
    process = started.launch()
    server = started.launcher._server
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    # The kernel kills the model's process a moment later: until then it answers.
    support.wait_until(lambda: process.death is not None)
    with pytest.raises(errors.ModelDied, match="the program that started it has ended"):
        process.call({"call": "predict", "outputs": []})
    process.end()
    other = started.launch()
    assert is_running(other.pid)
    other.end()


@pytest.mark.parametrize("spare", [0, fork_server.DESCRIPTORS])
def test_a_process_that_cannot_be_forked_is_refused_and_the_others_run_on(
    started: Started, spare: int
) -> None:
    running, server = started.launch(), started.launcher._server
    assert server is not None
    _, files_max = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    used = {int(path.name) for path in Path(f"/proc/{server.pid}/fd").iterdir()}
    # The limit is one of numbers: `spare` below it are free.
    limit = [number for number in range(files_max) if number not in used][spare]
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, files_max))
    before = descriptors()
    with pytest.raises(errors.LoadFailed, match="Too many open files"):
        started.launch()
    support.wait_until(lambda: descriptors() <= before)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (files_max, files_max))
    started.launch().end()
    assert running.death is None
    running.end()


@pytest.mark.parametrize(
    ("end", "death"),
    [
        (signal.SIGKILL, process_death.ProcessDeath("SIGKILL")),
        (signal.SIGTERM, process_death.ProcessDeath("SIGTERM")),
        (signal.SIGSEGV, process_death.ProcessDeath("SIGSEGV")),
    ],
)
def test_a_process_that_is_killed_from_outside_is_told(
    started: Started, end: signal.Signals, death: process_death.ProcessDeath
) -> None:
    process = started.launch()
    os.kill(process.pid, end)
    support.wait_until(lambda: started.dead == [process])
    assert process.death == death
    process.end()


def test_a_worker_that_dies_takes_its_processes_along() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            starting = Started()
            process, server = starting.launch(), starting.launcher._server
            assert server is not None
            os.write(writing, f"{process.pid} {server.pid}".encode())
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    pids = [int(word) for word in os.read(reading, 100).split()]
    os.close(reading)
    os.close(writing)
    assert len(pids) == 2
    support.wait_until(lambda: not any(map(is_running, pids)))
