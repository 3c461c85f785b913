from __future__ import annotations

import gc
import threading
import weakref

import pytest

from meshserve.worker.models import threads
from tests import support

WAIT_S = 10


class Work:
    """Notes its thread, and waits until it may go on."""

    def __init__(self, *, may_end: bool = True) -> None:
        self.thread = threading.main_thread()
        self.may_end = threading.Event()
        self.has_begun = threading.Event()
        if may_end:
            self.may_end.set()

    def __call__(self) -> threading.Thread:
        self.thread = threading.current_thread()
        self.has_begun.set()
        self.may_end.wait(WAIT_S)
        return self.thread


def done(some: threads.Threads, *, may_end: bool = True) -> Work:
    work = Work(may_end=may_end)
    some.submit(work)
    assert work.has_begun.wait(WAIT_S)
    return work


def idle(some: threads.Threads, count: int) -> None:
    support.wait_until(lambda: len(some._idle) == count, WAIT_S, f"{count} threads are idle")


def test_a_thread_is_used_again() -> None:
    some = threads.Threads("t", lambda: None)
    first = done(some)
    idle(some, 1)
    assert done(some).thread is first.thread
    assert (first.thread.name, first.thread.daemon) == ("t", True)
    some.close()


def test_a_thread_is_free_when_its_end_is_announced() -> None:
    some = threads.Threads("t", lambda: None)
    ran_by: set[threading.Thread] = set()
    for _ in range(200):
        ran_by.add(some.submit(threading.current_thread).result(WAIT_S))
    assert len(ran_by) == 1
    some.close()


def test_each_thread_is_made_ready_first() -> None:
    ready = set()
    some = threads.Threads("t", lambda: ready.add(threading.current_thread()))
    hanging, other = done(some, may_end=False), done(some)
    assert ready == {hanging.thread, other.thread}
    hanging.may_end.set()
    some.close()


def test_work_that_hangs_holds_up_no_other_work() -> None:
    some = threads.Threads("t", lambda: None)
    hanging = done(some, may_end=False)
    assert done(some).thread is not hanging.thread
    idle(some, 1)
    hanging.may_end.set()
    idle(some, 2)
    some.close()


def test_few_wait_for_more() -> None:
    some = threads.Threads("t", lambda: None)
    many = [done(some, may_end=False) for _ in range(threads.IDLE_MAX + 3)]
    for work in many:
        work.may_end.set()
    support.wait_until(
        lambda: sum(work.thread.is_alive() for work in many) == threads.IDLE_MAX,
        WAIT_S,
        "the others have ended",
    )
    some.close()
    support.wait_until(
        lambda: not any(work.thread.is_alive() for work in many), WAIT_S, "all have ended"
    )


def test_a_thread_keeps_nothing_of_its_last_work() -> None:
    some = threads.Threads("t", lambda: None)
    seen = weakref.ref(done(some))
    support.wait_until(
        lambda: gc.collect() is not None and seen() is None, WAIT_S, "the work is gone"
    )
    some.close()


def test_what_work_raises_is_raised_where_it_is_waited_for() -> None:
    some = threads.Threads("t", lambda: None)
    with pytest.raises(SystemExit):
        some.submit(exit).result(WAIT_S)
    assert some.submit(int, "7", base=8).result(WAIT_S) == 7
    some.close()
