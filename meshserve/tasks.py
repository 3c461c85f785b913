"""Background tasks of an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

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


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.error("the task %s failed", task.get_name(), exc_info=failure)
