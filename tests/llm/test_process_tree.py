from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing import shared_memory
from pathlib import Path

import psutil
import pytest

from meshserve.llm import process_tree
from tests import support

PATIENCE_S = 60.0


def with_a_segment():
    segment = shared_memory.SharedMemory(create=True, size=4096)
    segment.buf[0] = 1
    time.sleep(60)


def with_a_child():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        child.wait()


@pytest.fixture
def family():
    return process_tree.ProcessTree()


@pytest.fixture
def parent(family):
    made = multiprocessing.get_context("spawn").Process(target=with_a_child)
    made.start()
    support.wait_until(lambda: len(family.living()) == 2, what="parent and child")
    yield made
    family.kill()
    made.join()
    made.close()


def test_it_knows_the_children_of_its_children(family, parent):
    assert parent.pid in {each.pid for each in family.living()}
    family.kill()
    family.wait(PATIENCE_S)
    assert family.living() == []


def test_a_child_whose_parent_is_dead_is_ended_too(family, parent):
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.join()
    assert [each.pid for each in family.living()] == [child.pid]
    family.kill()
    family.wait(PATIENCE_S)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_stopped_process_is_ended_too(family, parent):
    os.kill(parent.pid, signal.SIGSTOP)
    began_s = time.monotonic()
    family.kill()
    family.wait(PATIENCE_S)
    assert time.monotonic() - began_s < PATIENCE_S / 2


def test_the_shared_memory_of_those_who_were_killed_is_given_back(family):
    before = set(Path("/dev/shm").glob("psm_*"))
    made = multiprocessing.get_context("spawn").Process(target=with_a_segment)
    made.start()
    support.wait_until(lambda: family.living() and family._segments, what="segment")
    family.kill()
    family.wait(PATIENCE_S)
    made.join()
    made.close()
    left = {path for path in Path("/dev/shm").glob("psm_*") if str(path) in family._segments}
    assert left - before == set()


def test_what_ran_before_is_none_of_its_business(parent):
    assert process_tree.ProcessTree().living() == []
    assert parent.is_alive()


def test_a_family_of_nobody_has_nobody_to_end(family):
    family.kill()
    family.wait(0)
