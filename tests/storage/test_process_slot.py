from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshserve.storage import process_slot
from tests import support

DIGEST = "sha256:" + "a" * 64
PROGRAM = """
import signal, sys
from pathlib import Path
from meshserve.storage import process_slot
slot = process_slot.ProcessSlot(Path(sys.argv[1]))
slot.take()
slot.hold(sys.argv[2])
with slot.temp() as folder:
    (folder / "half").touch()
    signal.pause()
"""


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[process_slot.ProcessSlot]:
    slot = process_slot.ProcessSlot(tmp_path / "seats")
    slot.take()
    yield slot
    slot.give_back()


def test_holds_are_counted(slot: process_slot.ProcessSlot) -> None:
    slot.hold(DIGEST)
    slot.hold(DIGEST)
    slot.release(DIGEST)
    assert slot.held_by_all() == {DIGEST}
    slot.release(DIGEST)
    assert slot.held_by_all() == frozenset()
    slot.release(DIGEST)
    slot.hold(DIGEST)
    assert slot.held_by_all() == {DIGEST}


def test_holds_of_others_are_seen(slot: process_slot.ProcessSlot, tmp_path: Path) -> None:
    other = process_slot.ProcessSlot(tmp_path / "seats")
    other.hold(DIGEST)
    assert slot.held_by_all() == {DIGEST}
    other.give_back()
    assert slot.held_by_all() == frozenset()


def test_an_unfinished_folder_is_removed(slot: process_slot.ProcessSlot) -> None:
    with slot.temp() as folder:
        (folder / "half").touch()
    assert not folder.exists()


def test_giving_back_leaves_nothing(tmp_path: Path) -> None:
    slot = process_slot.ProcessSlot(tmp_path / "seats")
    slot.take()
    slot.take()
    slot.hold(DIGEST)
    slot.give_back()
    slot.give_back()
    assert list((tmp_path / "seats").iterdir()) == []


def test_a_slot_that_could_not_be_made_anew_leaves_other_files_open(
    slot: process_slot.ProcessSlot, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "seats")
    (tmp_path / "seats").touch()
    with pytest.raises(FileExistsError):
        slot.take()
    # This file gets the number of the lock's descriptor.
    with (tmp_path / "other").open("wb") as other:
        with pytest.raises(FileExistsError):
            slot.take()
        os.fstat(other.fileno())
    (tmp_path / "seats").unlink()
    slot.take()


@pytest.mark.edge
def test_a_killed_process_leaves_nothing_that_the_next_does_not_clear(
    slot: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "seats"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, folder, DIGEST]) as process:
        support.wait_until(
            lambda: list(folder.glob("*/temp/*/half")), what="the other process's unfinished file"
        )
        assert slot.held_by_all() == {DIGEST}
        os.kill(process.pid, signal.SIGKILL)
    assert slot.held_by_all() == frozenset()
    assert len(list(folder.iterdir())) == 2
