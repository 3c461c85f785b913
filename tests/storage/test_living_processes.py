from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from meshserve.storage import living_processes

REGISTER = """
import pathlib, sys
from meshserve.storage import living_processes
living_processes.register(pathlib.Path(sys.argv[1]))
print(flush=True)
sys.stdin.read()
"""

FIND = """
import pathlib, sys
from meshserve.storage import living_processes
print(living_processes.find_others(pathlib.Path(sys.argv[1])))
"""


def begin(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", REGISTER, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_living_processes_are_found_and_dead_ones_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert living_processes.find_others(folder) == []
    with begin(folder) as first, begin(folder) as second:
        assert sorted(living_processes.find_others(folder)) == sorted([first.pid, second.pid])
        assert folder.stat().st_mode & 0o777 == 0o700
        first.kill()
        first.wait()
        assert living_processes.find_others(folder) == [second.pid]
        second.kill()
    assert living_processes.find_others(folder) == []
    assert list(folder.iterdir()) == []


def test_a_process_does_not_find_itself_and_stays_registered(tmp_path: Path) -> None:
    for _ in range(2):
        living_processes.register(tmp_path)
    assert living_processes.find_others(tmp_path) == []
    command = [sys.executable, "-c", FIND, str(tmp_path)]
    for _ in range(2):
        assert subprocess.check_output(command) == f"[{os.getpid()}]\n".encode()


def test_a_file_that_no_process_of_its_name_holds_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "1").touch()
    (tmp_path / "notes").touch()
    assert living_processes.find_others(tmp_path) == []


def test_a_process_that_has_left_is_not_found(tmp_path: Path) -> None:
    living_processes.register(tmp_path)
    living_processes.deregister(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FIND, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    living_processes.deregister(tmp_path)
