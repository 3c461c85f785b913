"""The journals of processes that are really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshserve.core.values import containment
from meshserve.worker.models import dead_workers, run_journal

WORKER = """
import ctypes, mmap, os, signal, sys, threading, time
from pathlib import Path
from meshserve.worker.models import run_journal
journal = run_journal.RunJournal(Path(sys.argv[1]), sys.argv[2])
journal.note_crashes()
journal.begin("sha256:a/1")
block = journal.running("sha256:b/2")
block.__enter__()
print("running", flush=True)
sys.stdin.readline()
{end}
"""

ENDS = {
    "": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGSEGV": "ctypes.string_at(0)",
    "SIGABRT": "os.abort()",
    "SIGBUS": "os.kill(os.getpid(), signal.SIGBUS)",
    "exit": "os._exit(0)",
    # Python's own calls take no C stack, but those of `repr` for nested lists do.
    "stack": "sys.setrecursionlimit(1 << 30); x = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
}


@pytest.fixture
def looking(tmp_path: Path) -> Iterator[dead_workers.DeadWorkers]:
    own = run_journal.RunJournal(tmp_path, "own")
    yield dead_workers.DeadWorkers(own)
    own.close()


def begin(tmp_path: Path, end: str, worker_id: str = "other") -> subprocess.Popen[bytes]:
    """Start a worker that runs two copies, and ends so once it gets a line."""
    command = [sys.executable, "-c", WORKER.format(end=end), str(tmp_path), worker_id]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"running\n"
    return process


def finish(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


@pytest.mark.parametrize("name", ENDS)
def test_a_death_is_told_once_with_what_ran_and_the_signal(
    tmp_path: Path, looking: dead_workers.DeadWorkers, name: str
) -> None:
    process = begin(tmp_path, ENDS[name])
    assert looking.look() == []
    finish(process)
    (death,) = looking.look()
    noted = {"exit": "", "stack": "SIGSEGV"}.get(name, name)
    assert death == containment.WorkerDeath(
        "other", process.pid, ("sha256:a/1", "sha256:b/2"), noted
    )
    assert looking.look() == []


def test_a_child_that_a_model_has_forked_does_not_keep_a_dead_worker_alive(
    tmp_path: Path, looking: dead_workers.DeadWorkers
) -> None:
    forking = "child = os.fork() or time.sleep(60)\nprint(child, flush=True)\nos._exit(1)"
    process = begin(tmp_path, forking)
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.close()
    process.wait(20)
    assert len(looking.look()) == 1
    assert process.stdout is not None
    os.kill(int(process.stdout.readline()), signal.SIGKILL)
    process.stdout.close()


def test_a_worker_that_stopped_in_good_order_has_not_died(
    tmp_path: Path, looking: dead_workers.DeadWorkers
) -> None:
    finish(begin(tmp_path, "journal.close()"))
    assert looking.look() == []
    assert [path.name.split(".")[0] for path in tmp_path.iterdir()] == ["own"]


def test_a_restarted_worker_learns_what_its_former_process_ran_and_removes_the_journal(
    tmp_path: Path,
) -> None:
    finish(begin(tmp_path, ENDS["SIGSEGV"], "own"))
    own = run_journal.RunJournal(tmp_path, "own")
    (death,) = dead_workers.DeadWorkers(own).look()
    assert (death.worker_id, death.signal) == ("own", "SIGSEGV")
    assert list(tmp_path.iterdir()) == [own.path]
    own.close()


def test_this_process_is_never_dead_to_itself(tmp_path: Path) -> None:
    one, other = (run_journal.RunJournal(tmp_path, name) for name in ("one", "other"))
    one.begin("sha256:a/1")
    assert dead_workers.DeadWorkers(other).look() == []
    one.close()
    other.close()


def test_without_a_folder_nobody_is_seen() -> None:
    assert dead_workers.DeadWorkers(run_journal.RunJournal()).look() == []
