"""Run the loads of one process, and measure each: quick loads run one after another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from meshserve import errors
from meshserve.core.values import model
from meshserve.logs import run_context
from meshserve.worker.models import (
    detached,
    load_window,
    loader,
    process_memory,
    run_journal,
    threads,
)

logger = logging.getLogger(__name__)

TURN_S = 0.25
"""How long a load runs alone before the next one may start beside it."""


class LoadQueue:
    """Runs loads, each in a thread of its own that is abandoned if the load hangs.

    A footprint is the growth of the process during a load that ran alone. A load that overlaps with
    another is booked as expected, and measured the next time. Quick loads run one after another, so
    overlaps are rare; side by side in threads they would not end sooner. Frees beside a load are
    added to its growth: before, 1,081 copies of 58 MB together had 31 MB booked.
    """

    def __init__(
        self,
        detached_bytes_max: int = 0,
        journal: run_journal.RunJournal | None = None,
        meter: process_memory.ProcessMeter = process_memory.OWN,
    ) -> None:
        self.detached = detached.DetachedModels(detached_bytes_max)
        self._journal = journal or run_journal.RunJournal()
        self._meter = meter
        self._threads = threads.Threads("load", meter.allocator.tune_loader)
        self._windows: set[load_window.LoadWindow] = set()
        self._turn = asyncio.Lock()
        self._turn_since_s = 0.0

    def free(
        self, recipe: loader.LoadRecipe, loaded_copy: loader.LoadedCopy, *, is_detached: bool
    ) -> None:
        """Close or detach the copy, and note the freed bytes for the loads in progress."""
        # The balance of this thread leaves out what loading threads allocate meanwhile. It is read
        # without a load too: one that begins during the close is told of this close alone.
        before_bytes = self._meter.allocator.own_bytes()
        token = run_context.begin(_labels(recipe))
        try:
            with self._journal.running(recipe.journal_key):
                if is_detached:
                    loaded_copy.loaded.detach()
                else:
                    loaded_copy.loaded.close()
        finally:
            run_context.end(token)
        if self._windows:
            freed_bytes = max(0, before_bytes - self._meter.allocator.own_bytes())
            for window in self._windows:
                window.freed_bytes += freed_bytes

    def close(self) -> None:
        """Close detached models and idle threads. Threads that hang end with the process."""
        self.detached.clear()
        self._threads.close()

    async def load(self, recipe: loader.LoadRecipe, need: model.Footprint) -> loader.LoadedCopy:
        """Attach the copy if it was detached, else load it. Raises LoadFailed or MissingExtra.

        `need` is the expected footprint.
        """
        return await self._attach(recipe) or await self._load(recipe, need)

    async def _attach(self, recipe: loader.LoadRecipe) -> loader.LoadedCopy | None:
        """Attach the copy again; return None if it was not detached or can't be attached.

        In the latter case the load of the whole file that follows reports the error.
        """
        copy = self.detached.take(recipe.key)
        if copy is None:
            return None
        try:
            return await self._in_thread(
                recipe, lambda: loader.attach(copy, recipe.artifact, self._meter)
            )
        except errors.LoadFailed:
            copy.loaded.close()
            return None

    async def _load(self, recipe: loader.LoadRecipe, need: model.Footprint) -> loader.LoadedCopy:
        if recipe.is_isolated:
            # A process is measured by itself, whatever runs beside it.
            alone = load_window.LoadWindow(0.0)
            return await self._in_thread(
                recipe, lambda: loader.load(recipe, need, alone, self._meter)
            )
        has_turn = await self._take_turn()
        window = self._open_window(recipe.spec.load_timeout_s)
        try:
            return await self._in_thread(
                recipe, lambda: loader.load(recipe, need, window, self._meter)
            )
        finally:
            self._windows.discard(window)
            if has_turn:
                self._turn.release()

    async def _in_thread(
        self, recipe: loader.LoadRecipe, work: Callable[[], loader.LoadedCopy]
    ) -> loader.LoadedCopy:
        def run() -> loader.LoadedCopy | errors.MeshError:
            token = run_context.begin(_labels(recipe))
            try:
                with self._journal.running(recipe.journal_key):
                    return work()
            except BaseException as error:
                # Even SystemExit of a user's code belongs to the load, not to the thread.
                logger.info("a load failed", exc_info=error)
                return _without_traceback(error)
            finally:
                run_context.end(token)

        outcome = await asyncio.get_running_loop().run_in_executor(self._threads, run)
        if isinstance(outcome, errors.MeshError):
            raise outcome
        return outcome

    async def _take_turn(self) -> bool:
        """Wait for the turn to load alone; return False if another load keeps it for over TURN_S.

        The load then begins beside the slow one, and neither is measured.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                # A free lock is taken without a wait, so a time that has passed does no harm.
                async with asyncio.timeout_at(self._turn_since_s + TURN_S):
                    await self._turn.acquire()
            except TimeoutError:
                # Another load may have got the turn meanwhile: then its time counts.
                if loop.time() >= self._turn_since_s + TURN_S:
                    return False
            else:
                self._turn_since_s = loop.time()
                return True

    @property
    def is_loading(self) -> bool:
        """Whether a model is loaded in this process now; loads past their timeouts do not count."""
        return bool(self._overlapping(asyncio.get_running_loop().time()))

    def _overlapping(self, now_s: float) -> list[load_window.LoadWindow]:
        return [window for window in self._windows if window.until_s > now_s]

    def _open_window(self, timeout_s: float) -> load_window.LoadWindow:
        """Open a load's window. Loads past their timeouts don't overlap: they may hang for ever."""
        now_s = asyncio.get_running_loop().time()
        overlapping = self._overlapping(now_s)
        for window in overlapping:
            window.is_disturbed = True
        window = load_window.LoadWindow(
            now_s + timeout_s, self._journal, is_disturbed=bool(overlapping)
        )
        self._windows.add(window)
        return window


def _labels(recipe: loader.LoadRecipe) -> run_context.RunLabels:
    return run_context.RunLabels(recipe.spec.id.name, recipe.spec.id.version)


def _without_traceback(error: BaseException) -> errors.MeshError:
    """Return the error without its traceback, which would keep the load's objects alive."""
    if isinstance(error, errors.MeshError):
        return type(error)(error.message, retry_after_s=error.retry_after_s)
    return errors.LoadFailed(errors.words_of(error))
