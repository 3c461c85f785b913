from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from meshserve.storage import process_slot
from tests import support

DIGEST = "sha256:" + "a" * 64
PROGRAM = """
import signal, sys
from pathlib import Path
from meshserve.storage import process_slot
seat = process_slot.ProcessSlot(Path(sys.argv[1]))
seat.take()
seat.hold(sys.argv[2])
with seat.temp() as made:
    (made / "half").touch()
    signal.pause()
"""


@pytest.fixture
def seat(tmp_path):
    made = process_slot.ProcessSlot(tmp_path / "seats")
    made.take()
    yield made
    made.give_back()


def test_holds_are_counted(seat):
    seat.hold(DIGEST)
    seat.hold(DIGEST)
    seat.release(DIGEST)
    assert seat.held_by_all() == {DIGEST}
    seat.release(DIGEST)
    assert seat.held_by_all() == frozenset()
    seat.release(DIGEST)
    seat.hold(DIGEST)
    assert seat.held_by_all() == {DIGEST}


def test_holds_of_others_are_seen(seat, tmp_path):
    other = process_slot.ProcessSlot(tmp_path / "seats")
    other.hold(DIGEST)
    assert seat.held_by_all() == {DIGEST}
    other.give_back()
    assert seat.held_by_all() == frozenset()


def test_an_unfinished_folder_is_removed(seat):
    with seat.temp() as made:
        (made / "half").touch()
    assert not made.exists()


def test_giving_back_leaves_nothing(tmp_path):
    seat = process_slot.ProcessSlot(tmp_path / "seats")
    seat.take()
    seat.take()
    seat.hold(DIGEST)
    seat.give_back()
    seat.give_back()
    assert list((tmp_path / "seats").iterdir()) == []


@pytest.mark.edge
def test_a_killed_process_leaves_nothing_that_the_next_does_not_clear(seat, tmp_path):
    folder = tmp_path / "seats"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, folder, DIGEST]) as process:
        support.wait_until(
            lambda: list(folder.glob("*/temp/*/half")), what="the other process's unfinished file"
        )
        assert seat.held_by_all() == {DIGEST}
        os.kill(process.pid, signal.SIGKILL)
    assert seat.held_by_all() == frozenset()
    assert len(list(folder.iterdir())) == 2
