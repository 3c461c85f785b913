from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshserve import errors, tasks
from meshserve.cluster import named_actors

pytestmark = [pytest.mark.edge, pytest.mark.usefixtures("ray_session")]


class StubActor:
    """Answers, raises, or ends."""

    async def pid(self) -> Any:
        return os.getpid()

    async def refuse(self) -> Any:
        return errors.Conflict("not now")

    async def fail(self) -> None:
        raise TimeoutError("too slow")

    async def live(self) -> Any:
        return "it had enough"

    async def stop(self) -> None:
        """End."""


@pytest.fixture
async def named() -> AsyncIterator[Any]:
    actors = named_actors.NamedActors()
    await actors.create("stub:1", StubActor, {"num_cpus": 0})
    yield actors
    await actors.remove("stub:1")


async def test_an_actor_is_found_by_its_name(named: Any) -> None:
    other = named_actors.NamedActors()
    assert await other.names("stub:") == ["stub:1"]
    assert await other.call("stub:1", "pid") == await named.call("stub:1", "pid")
    assert (await other.exists("stub:1"), await other.exists("stub:2")) == (True, False)


async def test_mesh_errors_keep_their_class_and_others_become_unavailable(named: Any) -> None:
    with pytest.raises(errors.Conflict, match=r"^not now$"):
        await named.call("stub:1", "refuse")
    with pytest.raises(errors.Unavailable, match=r"^stub:1: TimeoutError: too slow$"):
        await named.call("stub:1", "fail")


async def test_waiting_for_the_end_returns_the_reason(named: Any) -> None:
    assert await named.wait_until_ended("stub:1") == "it had enough"
    assert await named.wait_until_ended("stub:2") == "stub:2 is not there"


async def test_a_killed_actor_is_unavailable(named: Any) -> None:
    os.kill(await named.call("stub:1", "pid"), signal.SIGKILL)
    with pytest.raises(errors.Unavailable):
        await named.call("stub:1", "pid")


async def test_a_cancelled_call_is_waited_for() -> None:
    began, may_end, ended = threading.Event(), threading.Event(), []

    def create() -> None:
        began.set()
        may_end.wait(10)
        ended.append(True)

    cancelled = tasks.spawn(named_actors.run_to_end(create), "run to end", is_awaited=True)
    await asyncio.to_thread(began.wait, 10)
    cancelled.cancel()
    await asyncio.sleep(0.05)
    assert not cancelled.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert ended == [True]


async def test_a_stopped_actor_frees_its_name(named: Any) -> None:
    await named.stop("stub:1", 10.0)
    assert await named.names("stub:") == []
    await named.stop("stub:1", 10.0)
