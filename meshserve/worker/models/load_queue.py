"""Loads copies, each in a thread of its own that may be given up, and keeps what is quickly whole again of those that left."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable

from meshserve import errors
from meshserve.core.values import model
from meshserve.worker.models import allocators, detached, loader, threads

logger = logging.getLogger(__name__)
TURN_S = 0.25


class LoadQueue:
    """The loads of one process. A footprint is what the process grew by while nothing else was loaded.

    Where something was, the copy takes what it was expected to take, and is measured when it is loaded again. So that this is rare, loads
    that are quick go one after another: in threads side by side they would not be done sooner.
    """

    def __init__(self, kept_bytes_max: int = 0) -> None:
        self.skeletons = detached.DetachedModels(kept_bytes_max)
        self._threads = threads.Threads("load", allocators.current().tune_loader)
        self._under_way: set[loader.LoadWindow] = set()
        self._turn = asyncio.Lock()
        self._turn_since_s = 0.0

    def let_go(self, made: loader.LoadedCopy, *, is_kept: bool) -> None:
        """Give a copy's memory back, or only what it maps. What that frees is not taken for a smaller footprint of what loads meanwhile."""
        before_bytes = allocators.current().own_bytes()
        if is_kept:
            made.loaded.detach()
        else:
            made.loaded.close()
        if self._under_way:
            freed_bytes = max(0, before_bytes - allocators.current().own_bytes())
            for window in self._under_way:
                window.freed_bytes += freed_bytes

    def close(self) -> None:
        """Give back what is kept. Loads that hang are left to the end of the process."""
        self.skeletons.clear()
        self._threads.close()

    async def load(self, recipe: loader.LoadRecipe, need: model.Footprint) -> loader.LoadedCopy:
        """Load in a thread of its own, or attach what was kept. Raises LoadFailed with a reason for the user, whatever went wrong."""
        return await self._attached(recipe) or await self._measured(recipe, need)

    async def _attached(self, recipe: loader.LoadRecipe) -> loader.LoadedCopy | None:
        """Nothing where nothing was kept, or the file is not what it was: then the whole load says what is wrong with it."""
        skeleton = self.skeletons.take(recipe.key)
        if skeleton is None:
            return None
        try:
            return await self._in_thread(lambda: loader.attached(skeleton, recipe.artifact))
        except errors.LoadFailed:
            skeleton.loaded.close()
            return None

    async def _measured(
        self, recipe: loader.LoadRecipe, need: model.Footprint
    ) -> loader.LoadedCopy:
        has_turn = await self._had_turn()
        window = self._enter(recipe.spec.load_timeout_s)
        try:
            return await self._in_thread(lambda: loader.made(recipe, need, window))
        finally:
            self._under_way.discard(window)
            if has_turn:
                self._turn.release()

    async def _in_thread(self, make: Callable[[], loader.LoadedCopy]) -> loader.LoadedCopy:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[loader.LoadedCopy] = loop.create_future()

        def run() -> threads.Task:
            try:
                made, failure = make(), None
            except (
                BaseException
            ) as error:  # even SystemExit of a user's code belongs to the load, not to the thread
                logger.info("a load failed", exc_info=error)
                made, failure = None, _bare(error)
            return functools.partial(loop.call_soon_threadsafe, _settle, answer, made, failure)

        self._threads.run(run)
        return await answer

    async def _had_turn(self) -> bool:
        """Whether those before ended soon. A load that takes long is overtaken, and those who overtake it are not measured."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(self._turn_since_s + TURN_S):
                    await self._turn.acquire()
            except TimeoutError:
                if loop.time() >= self._turn_since_s + TURN_S:
                    return False
            else:
                self._turn_since_s = loop.time()
                return True

    def _enter(self, timeout_s: float) -> loader.LoadWindow:
        """Begin a load's time. One that is over its time may hang for ever: it disturbs nobody."""
        now_s = time.monotonic()
        others = [each for each in self._under_way if each.until_s > now_s]
        for other in others:
            other.is_disturbed = True
        window = loader.LoadWindow(now_s + timeout_s, is_disturbed=bool(others))
        self._under_way.add(window)
        return window


def _settle(
    answer: asyncio.Future[loader.LoadedCopy],
    made: loader.LoadedCopy | None,
    error: errors.MeshError | None,
) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    elif made is not None:
        answer.set_result(made)


def _bare(error: BaseException) -> errors.MeshError:
    """What is to be told of a failure, without its traceback: that would keep all that the load had made until then."""
    if isinstance(error, errors.MeshError):
        return type(error)(error.message, retry_after_s=error.retry_after_s)
    return errors.LoadFailed(repr(error))
