"""Background tasks of an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

AGAIN_S = 1.0

T = TypeVar("T")
logger = logging.getLogger(__name__)

# The event loop holds its tasks weakly: a task that nobody refers to may be collected half done.
_running: set[asyncio.Task[Any]] = set()


def spawn(work: Coroutine[Any, Any, T], name: str, *, is_awaited: bool = False) -> asyncio.Task[T]:
    """Start `work` as a task of the running loop, keep it until it ends, and log its failure.

    With `is_awaited` the caller takes the result, failure included, and nothing is logged.
    """
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_running.discard)
    if not is_awaited:
        task.add_done_callback(_log_failure)
    return task


async def keep(loop: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    """Run `loop` until it returns; begin it again, AGAIN_S seconds later, if a bug has ended it."""
    while True:
        try:
            return await loop()
        except Exception:
            # A worker or controller whose timer has ended would look healthy for ever.
            logger.exception("the loop %s failed, and begins again", name)
        await asyncio.sleep(AGAIN_S)


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.error("the task %s failed", task.get_name(), exc_info=failure)
