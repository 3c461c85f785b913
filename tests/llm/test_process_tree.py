from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path

import psutil
import pytest

from meshserve.llm import process_tree
from tests import support

WAIT_S = 60.0


def with_a_segment() -> None:
    segment = shared_memory.SharedMemory(create=True, size=4096)
    assert segment.buf is not None
    segment.buf[0] = 1
    time.sleep(60)


def with_a_child() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        child.wait()


@pytest.fixture
def tree() -> process_tree.ProcessTree:
    return process_tree.ProcessTree()


@pytest.fixture
def parent(tree: process_tree.ProcessTree) -> Iterator[multiprocessing.process.BaseProcess]:
    process = multiprocessing.get_context("spawn").Process(target=with_a_child)
    process.start()
    support.wait_until(lambda: len(tree.living()) == 2, what="parent and child")
    yield process
    tree.kill()
    process.join()
    process.close()


def test_children_of_children_are_known(
    tree: process_tree.ProcessTree, parent: multiprocessing.process.BaseProcess
) -> None:
    assert parent.pid in {process.pid for process in tree.living()}
    tree.kill()
    tree.wait(WAIT_S)
    assert tree.living() == []


def test_a_child_whose_parent_is_dead_is_killed_too(
    tree: process_tree.ProcessTree, parent: multiprocessing.process.BaseProcess
) -> None:
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.join()
    assert [process.pid for process in tree.living()] == [child.pid]
    tree.kill()
    tree.wait(WAIT_S)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_stopped_process_is_killed_too(
    tree: process_tree.ProcessTree, parent: multiprocessing.process.BaseProcess
) -> None:
    psutil.Process(parent.pid).suspend()
    began_s = time.monotonic()
    tree.kill()
    tree.wait(WAIT_S)
    assert time.monotonic() - began_s < WAIT_S / 2


def test_shared_memory_of_killed_processes_is_removed(tree: process_tree.ProcessTree) -> None:
    before = set(Path("/dev/shm").glob("psm_*"))
    process = multiprocessing.get_context("spawn").Process(target=with_a_segment)
    process.start()
    support.wait_until(lambda: tree.living() and tree._segments, what="segment")
    tree.kill()
    tree.wait(WAIT_S)
    process.join()
    process.close()
    left = {path for path in Path("/dev/shm").glob("psm_*") if str(path) in tree._segments}
    assert left - before == set()


def test_processes_that_ran_before_are_ignored(parent: multiprocessing.process.BaseProcess) -> None:
    assert process_tree.ProcessTree().living() == []
    assert parent.is_alive()


def test_an_empty_tree_can_be_killed(tree: process_tree.ProcessTree) -> None:
    tree.kill()
    tree.wait(0)
