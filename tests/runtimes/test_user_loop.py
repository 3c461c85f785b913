from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from meshserve import tasks
from meshserve.runtimes import user_loop


@pytest.fixture
def loop() -> Any:
    loop = user_loop.UserLoop("test")
    yield loop
    loop.close()


def test_all_calls_are_on_one_loop_of_its_own_thread(loop: user_loop.UserLoop) -> None:
    async def where() -> tuple[asyncio.AbstractEventLoop, str]:
        return asyncio.get_running_loop(), threading.current_thread().name

    first, second = loop.call(where), loop.wait(where())
    assert first == second
    assert first[1] == "test"
    assert loop.call(threading.current_thread).name == "test"


def test_calls_of_several_threads_interleave_where_they_wait(loop: user_loop.UserLoop) -> None:
    meeting = asyncio.Barrier(3)

    async def meet() -> None:
        await meeting.wait()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: loop.call(meet), range(3)))


def exits() -> None:
    raise SystemExit(3)


async def exits_later() -> None:
    await asyncio.sleep(0)
    raise SystemExit(4)


async def interrupts_later() -> None:
    await asyncio.sleep(0)
    raise KeyboardInterrupt


def test_what_is_raised_reaches_the_caller_and_an_exit_ends_nothing(
    loop: user_loop.UserLoop,
) -> None:
    with pytest.raises(ZeroDivisionError):
        loop.call(lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        loop.call(exits)
    with pytest.raises(RuntimeError, match="SystemExit: 4"):
        loop.call(exits_later)
    with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
        loop.call(interrupts_later)
    assert loop.call(lambda: 5) == 5


def test_a_task_of_the_model_s_own_that_exits_ends_nothing(
    loop: user_loop.UserLoop, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[Any] = []

    async def spawn() -> None:
        kept.append(tasks.spawn(exits_later(), "exit", is_awaited=True))

    loop.call(spawn)

    async def later() -> set[Any]:
        return (await asyncio.wait(kept))[0]

    assert loop.call(later) == set(kept)
    assert "ended its event loop's run" in caplog.text


def test_closing_cancels_what_runs_and_ends_the_thread() -> None:
    loop = user_loop.UserLoop("closed")
    ended = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def spawn() -> Any:
        return tasks.spawn(forever(), "forever")

    kept = loop.call(spawn)
    loop.call(lambda: None)
    loop.close()
    assert ended.is_set()
    assert kept.cancelled()
    assert not any(thread.name == "closed" for thread in threading.enumerate())
    user_loop.UserLoop("never begun").close()
