from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import served
from tests import support

LEAVING = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
"""


def started(tmp_path: Path, program: Any) -> Any:
    return served.serving([sys.executable, "-c", program], tmp_path / "log")


@pytest.mark.edge
def test_children_that_leave_the_session_are_found_and_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with started(tmp_path, LEAVING) as system:
        support.wait_until(lambda: system.process.poll() is not None, what="the parent's end")
        (left,) = system.pids() - {system.process.pid}
        assert left in system.cpu_s()
    assert system.left == {left}
    assert not served._is_alive(left)
    assert str(left) in capsys.readouterr().out


@pytest.mark.edge
def test_a_server_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    with (
        started(tmp_path, "import sys; sys.exit('no port')") as system,
        pytest.raises(served.NotServing, match="no port"),
    ):
        system.wait_until(lambda: False, 30)


@pytest.mark.edge
def test_cpu_time_of_a_busy_process_grows(tmp_path: Path) -> None:
    with started(tmp_path, "while True: pass") as system:
        before = system.cpu_s()
        support.wait_until(lambda: served.spent_s(before, system.cpu_s()) > 0.05, what="CPU time")


def test_time_of_new_processes_counts_in_full() -> None:
    assert served.spent_s({1: 2.0}, {1: 2.5, 2: 0.25}) == 0.75
    assert os.getpid() in served._parents()


@pytest.mark.edge
def test_memory_is_that_of_all_processes(tmp_path: Path) -> None:
    with started(
        tmp_path, "kept = bytes(b'x') * (64 << 20); import signal; signal.pause()"
    ) as system:
        support.wait_until(lambda: system.memory_bytes() > 64 << 20, what="64 MiB")
