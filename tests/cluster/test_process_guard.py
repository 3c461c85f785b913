from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshserve.cluster import process_guard
from tests import support

FAMILY = (
    "import subprocess, sys, time\n"
    "from meshserve.cluster import process_guard\n"
    "guard = process_guard.guard_this_process()\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(guard.pid, child.pid, flush=True)\n"
    "time.sleep(600)\n"
)


def is_alive(pid: Any) -> Any:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def family() -> Iterator[Any]:
    """A process under guard, the guard's pid, and its child's."""
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, *map(int, process.stdout.readline().split())
        process.kill()


@pytest.mark.parametrize("is_stuck", [False, True])
def test_children_end_with_a_killed_process(family: Any, is_stuck: bool) -> None:
    process, guard, child = family
    if is_stuck:
        os.kill(child, signal.SIGSTOP)
    process.kill()
    process.wait()
    support.wait_until(
        lambda: not is_alive(child) and not is_alive(guard), what="child and guard have ended"
    )


def test_a_leader_that_has_ended_already_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], start_new_session=True) as process:
        process.wait()
    process_guard.guard(process.pid)


SHARING = (
    "import multiprocessing, time\n"
    "from multiprocessing import shared_memory\n"
    "from meshserve.cluster import process_guard\n"
    "guard = process_guard.guard_this_process()\n"
    "tracked = shared_memory.SharedMemory(create=True, size=100)\n"
    "mapped = shared_memory.SharedMemory(create=True, size=100)\n"
    "multiprocessing.resource_tracker.unregister(mapped._name, 'shared_memory')\n"
    "child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,))\n"
    "child.start()\n"
    "print(guard.pid, child.pid, tracked.name, mapped.name, flush=True)\n"
    "time.sleep(600)\n"
)


def test_shared_memory_ends_with_a_killed_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SHARING], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        guard, child, *names = process.stdout.readline().split()
        segments = [Path("/dev/shm", name) for name in names]
        assert all(segment.exists() for segment in segments)
        process.kill()
    support.wait_until(
        lambda: not is_alive(child) and not is_alive(guard), what="child and guard have ended"
    )
    assert [segment for segment in segments if segment.exists()] == []
