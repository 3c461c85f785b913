from __future__ import annotations

import threading

import pytest

from meshserve import errors, tasks
from meshserve.control import registry_thread
from meshserve.core.values import registry_contents
from meshserve.testing import fake_store
from tests import support


class Hung(fake_store.FakeStore):
    """Answers nothing until it is interrupted."""

    def __init__(self) -> None:
        super().__init__()
        self.is_interrupted = threading.Event()

    def renew_lease(self) -> None:
        assert self.is_interrupted.wait(support.WAIT_S)
        raise OSError("interrupted")

    def interrupt(self) -> None:
        self.is_interrupted.set()


async def test_a_call_that_hangs_is_interrupted_at_its_limit() -> None:
    store = Hung()
    thread = registry_thread.RegistryThread(store)
    with pytest.raises(OSError, match="interrupted"):
        await thread.call(store.renew_lease, 0.01)
    # The next ones fail at once, until a probe has succeeded.
    with pytest.raises(errors.Unavailable, match=r"does not answer within 0\.01 s"):
        await thread.call(store.release_lease)
    await thread.probe(store.read_lease)
    await thread.call(store.release_lease)
    await thread.close()


async def test_a_failed_probe_is_the_problem_of_all_calls_after_it() -> None:
    store = fake_store.FakeStore()
    thread = registry_thread.RegistryThread(store)
    store.is_broken = True
    with pytest.raises(errors.Unavailable):
        await thread.probe(store.renew_lease)
    store.is_broken = False
    with pytest.raises(errors.Unavailable, match="the registry is broken"):
        await thread.call(store.read_lease)
    await thread.probe(store.renew_lease)
    assert await thread.call(store.read_lease) == store.lease
    await thread.close()


async def test_calls_run_one_after_the_other_and_end_before_it_is_closed() -> None:
    store, done = Hung(), []
    thread = registry_thread.RegistryThread(store)
    first = tasks.spawn(thread.call(store.renew_lease, 60.0), "first", is_awaited=True)
    second = tasks.spawn(thread.call(lambda: done.append(2), 60.0), "second")
    settled = tasks.spawn(thread.settled(), "settled")
    await support.wait_until_async(lambda: thread._thread._work_queue.qsize() == 2)
    assert not settled.done()
    store.interrupt()
    with pytest.raises(OSError, match="interrupted"):
        await first
    await second
    await settled
    assert done == [2]
    await thread.close()
    await thread.settled()


async def test_a_lost_lease_is_told_once() -> None:
    store = fake_store.FakeStore()
    thread = registry_thread.RegistryThread(store)
    store.lease = registry_contents.WriteLease("x", "the new mesh", 1)
    for _ in range(2):
        with pytest.raises(Exception, match="the new mesh has taken"):
            await thread.call(store.renew_lease)
    assert thread.lost.result() == "the new mesh has taken the registry"
    await thread.close()
