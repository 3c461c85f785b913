from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshserve import errors
from meshserve.launch import state_lock

HOLD = """
import pathlib, sys
from meshserve.launch import state_lock
with state_lock.held(pathlib.Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""

FIND = """
import pathlib, sys
from meshserve.launch import state_lock
print(state_lock.find_holder(pathlib.Path(sys.argv[1])))
"""


def begin_holder(state_dir: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_the_directory_is_made_for_its_user_alone(tmp_path: Path) -> None:
    state_dir = tmp_path / "a" / "b"
    with state_lock.held(state_dir):
        assert state_dir.stat().st_mode & 0o777 == 0o700
        assert state_lock.find_holder(state_dir) == os.getpid()
    assert state_lock.find_holder(state_dir) is None


def test_one_process_holds_it_at_a_time(tmp_path: Path) -> None:
    with begin_holder(tmp_path) as process:
        assert state_lock.find_holder(tmp_path) == process.pid
        with pytest.raises(errors.Unavailable, match=rf"process {process.pid} runs a mesh"):
            state_lock.refuse_if_held(tmp_path)
        taken = pytest.raises(errors.Unavailable, match="name another `state_dir`")
        with taken, state_lock.held(tmp_path):
            raise AssertionError("two processes hold one directory")
        process.communicate()
    state_lock.refuse_if_held(tmp_path)


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with begin_holder(tmp_path) as process:
        process.kill()
        process.wait()
        assert state_lock.find_holder(tmp_path) is None
        with state_lock.held(tmp_path):
            pass


def test_nothing_is_held_where_no_mesh_ever_was(tmp_path: Path) -> None:
    assert state_lock.find_holder(tmp_path / "missing") is None
    (tmp_path / state_lock.NAME).touch()
    assert state_lock.find_holder(tmp_path) is None


def test_a_directory_that_cannot_be_made_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = pytest.raises(errors.ConfigInvalid, match=r"state_dir: .*file/a can't be written to")
    with refused, state_lock.held(tmp_path / "file" / "a"):
        raise AssertionError("a file became a folder")


def test_the_holder_is_told_at_any_moment_of_its_life(tmp_path: Path) -> None:
    (tmp_path / state_lock.NAME).write_text("4194999")
    with begin_holder(tmp_path) as process:
        # The number of an earlier holder in the file means nothing.
        assert state_lock.find_holder(tmp_path) == process.pid
        process.kill()
    assert state_lock.find_holder(tmp_path) is None


def test_one_process_does_not_hold_it_twice_or_lose_it(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with state_lock.held(tmp_path):
        taken = pytest.raises(errors.Unavailable, match=rf"process {os.getpid()} runs a mesh")
        with taken, state_lock.held(link):
            raise AssertionError("held twice")
        assert state_lock.find_holder(link) == os.getpid()
        command = [sys.executable, "-c", FIND, str(tmp_path)]
        assert int(subprocess.check_output(command)) == os.getpid()
    with state_lock.held(link):
        pass
