"""The runs in one worker's threads: a sweep answers what is late, and counts what hangs.

Nothing ends a thread of a model that loops or waits for ever. A sweep on a tick finds such runs, so
a prediction needs no timer of its own.
"""

from __future__ import annotations

import asyncio
import collections
import functools
from collections.abc import Mapping
from typing import Any, Protocol

from meshserve.core.values import model

ABANDONED_S = 10.0
"""How long a run goes on after its last caller has left, or was answered, until it counts as hung.

A run that only takes long has most of this time and that of its caller.
"""


class SweptRuns(Protocol):
    """The runs of one copy. `key` is empty if they can't take this process's memory."""

    @property
    def key(self) -> str:
        """The copy's key in the journal of this process."""
        ...

    def sweep(self, now_s: float) -> bool:
        """Answer the requests whose time is over; return whether a run in a thread now hangs."""
        ...

    def waiting(self) -> list[model.ModelId]:
        """Return the model of each request that waits for its turn."""
        ...


class RunWatch:
    """The copies of one worker that run in threads at the moment. Lives on the event loop's thread.

    `hung` has when the runs of each copy that hang were found to, by the copy's key.
    """

    def __init__(self) -> None:
        self._running: set[SweptRuns] = set()
        self._ran: set[str] = set()
        self._hung: dict[str, dict[asyncio.Future[Any], float]] = {}

    @property
    def hung(self) -> Mapping[str, Mapping[asyncio.Future[Any], float]]:
        """The runs that hang, with the time at which that was noticed, by their copies' keys."""
        return self._hung

    @property
    def is_busy(self) -> bool:
        """Whether a run goes on in a thread."""
        return bool(self._running)

    def waiting(self) -> collections.Counter[model.ModelId]:
        """Return how many requests of each model wait for their turn."""
        return collections.Counter(id_ for runs in self._running for id_ in runs.waiting())

    def add(self, runs: SweptRuns) -> None:
        """Watch the runs of a copy, until `discard`."""
        self._running.add(runs)

    def discard(self, runs: SweptRuns) -> None:
        """Watch the copy no longer: none of its runs goes on."""
        self._running.discard(runs)
        # A short run begins and ends between two readings of memory, and counts for the next one.
        self._ran.add(runs.key)

    def take_ran(self) -> frozenset[str]:
        """Return the keys of copies that ran in threads of this process since the last call."""
        ran, self._ran = self._ran, set()
        return frozenset(ran.union(runs.key for runs in self._running)) - {""}

    def sweep(self, now_s: float) -> frozenset[str]:
        """Answer what is late; return the keys of copies of which another run hangs now.

        `now_s` is the time on the event loop's clock.
        """
        before = {key: len(ends) for key, ends in self._hung.items()}
        for runs in tuple(self._running):
            runs.sweep(now_s)
        return frozenset(key for key, ends in self._hung.items() if len(ends) > before.get(key, 0))

    def count_hung(self, key: str, end: asyncio.Future[Any]) -> None:
        """Count a run that hangs, until its future is done."""
        self._hung.setdefault(key, {})[end] = asyncio.get_running_loop().time()
        end.add_done_callback(functools.partial(self._forget, key))

    def _forget(self, key: str, end: asyncio.Future[Any]) -> None:
        ends = self._hung[key]
        del ends[end]
        if not ends:
            del self._hung[key]
