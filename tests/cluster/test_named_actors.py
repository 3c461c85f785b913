from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from meshserve import errors
from meshserve.cluster import named_actors

pytestmark = [pytest.mark.edge, pytest.mark.usefixtures("ray_session")]


class Told:
    """Answers, raises, or ends."""

    async def pid(self):
        return os.getpid()

    async def refuse(self):
        return errors.Conflict("not now")

    async def fail(self):
        raise TimeoutError("too slow")

    async def live(self):
        return "it had enough"

    async def stop(self):
        """End."""


@pytest.fixture
async def named():
    made = named_actors.NamedActors()
    await made.create("told:1", Told, {"num_cpus": 0})
    yield made
    await made.remove("told:1")


async def test_one_is_found_by_whoever_asks_for_its_name(named):
    other = named_actors.NamedActors()
    assert await other.names("told:") == ["told:1"]
    assert await other.call("told:1", "pid") == await named.call("told:1", "pid")
    assert (await other.exists("told:1"), await other.exists("told:2")) == (True, False)


async def test_errors_of_ours_and_of_others(named):
    with pytest.raises(errors.Conflict, match=r"^not now$"):
        await named.call("told:1", "refuse")
    with pytest.raises(errors.Unavailable, match=r"^told:1: TimeoutError: too slow$"):
        await named.call("told:1", "fail")


async def test_why_one_has_ended(named):
    assert await named.wait_until_ended("told:1") == "it had enough"
    assert await named.wait_until_ended("told:2") == "told:2 is not there"


async def test_one_that_was_killed_is_gone(named):
    os.kill(await named.call("told:1", "pid"), signal.SIGKILL)
    with pytest.raises(errors.Unavailable):
        await named.call("told:1", "pid")


async def test_who_gives_up_a_call_waits_until_it_is_through():
    began, may_end, ended = threading.Event(), threading.Event(), []

    def making():
        began.set()
        may_end.wait(10)
        ended.append(True)

    given_up = asyncio.ensure_future(named_actors.to_the_end(making))
    await asyncio.to_thread(began.wait, 10)
    given_up.cancel()
    await asyncio.sleep(0.05)
    assert not given_up.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert ended == [True]


async def test_one_that_is_stopped_leaves_its_name(named):
    await named.stop("told:1", 10.0)
    assert await named.names("told:") == []
    await named.stop("told:1", 10.0)
