"""Name the models whose runs hang in a worker's threads, or take more memory than it has."""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Callable, Iterable

from meshserve.core.memory import version_choice
from meshserve.core.values import containment, model
from meshserve.worker.models import memory_excess, run_watch

logger = logging.getLogger(__name__)

ALONE = "it runs in a process of its own for now"


class AilingCopies:
    """What one worker has found of its copies since it began, for its reports.

    `names` returns the models that have a copy now, by its key.
    """

    def __init__(
        self,
        watch: run_watch.RunWatch,
        budget_bytes: int,
        names: Callable[[str], Iterable[model.ModelId]],
    ) -> None:
        self._watch = watch
        self._names = names
        self._ids: dict[str, tuple[model.ModelId, ...]] = {}
        self._hung_totals: collections.Counter[str] = collections.Counter()
        self._excess = memory_excess.MemoryExcess(budget_bytes)
        self._loop = asyncio.get_running_loop()

    def note_hung(self, key: str) -> None:
        """Note that another run of the copy hangs."""
        self._hung_totals[key] += 1
        logger.warning(
            "a run of %s does not end, and nobody waits for it any more; %s",
            self._words(key),
            ALONE,
        )

    def note_memory(self, taken_bytes: int, *, is_loading: bool) -> frozenset[str]:
        """Name the models that run while this process takes far more than its budget.

        Return the keys of copies that did so again. While it `is_loading`, nobody is named: the
        load may have taken the memory.
        """
        # Taken during a load too, or these runs would be named for a later reading.
        ran = self._watch.take_ran()
        seen = self._excess.note(taken_bytes, () if is_loading else ran, self._loop.time())
        again = frozenset(key for key in seen if self._is_repeated(key))
        for key in seen:
            logger.warning(
                "the worker took %d MiB, far more than its budget, while %s ran%s",
                taken_bytes >> 20,
                self._words(key),
                f"; {ALONE}" if key in again else "",
            )
        return again

    def _is_repeated(self, key: str) -> bool:
        return self._excess.times[key] >= memory_excess.REPEATS

    def _words(self, key: str) -> str:
        """Return the names of the models with the copy, and keep them."""
        ids = tuple(sorted(set(map(version_choice.public_id, self._names(key)))))
        # A copy that has lost its names, since its models run alone by now, had them before.
        self._ids[key] = ids or self._ids.get(key, ())
        return ", ".join(map(str, self._ids[key])) or f"copy {key}"

    def is_hog(self, key: str) -> bool:
        """Return whether the copy has run while this process took far more than its budget."""
        return key in self._excess.times

    # For reports

    def hung(self) -> tuple[containment.HungCopy, ...]:
        """Return the copies with runs that hang in this worker's threads now."""
        now_s, ids, totals = self._loop.time(), self._ids, self._hung_totals
        return tuple(
            containment.HungCopy(key, ids[key], len(ends), totals[key], now_s - min(ends.values()))
            for key, ends in self._watch.hung.items()
            if key in ids
        )

    def hogs(self) -> tuple[containment.MemoryHog, ...]:
        """Return the copies that have run while this process took far more than its budget."""
        return tuple(
            containment.MemoryHog(
                *(key, self._ids[key], times, self._excess.peak_bytes[key]),
                is_suspect=self._is_repeated(key),
            )
            for key, times in self._excess.times.items()
        )

    @property
    def excess_s(self) -> float:
        """How long this process has taken far more than its budget, 0 if it does not now."""
        return self._excess.lasting_s(self._loop.time())
