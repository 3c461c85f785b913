"""A clock that a test advances."""

from __future__ import annotations

import asyncio
import heapq
import itertools

TURNS = 20
"""Turns of the event loop after each wake-up, so that its consequences happen at that time."""


class ManualClock:
    """Implements `cluster_control.Clock`; starts at 0, and wakes sleepers in order."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._numbers = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_s(self) -> float:
        """Return the seconds since the start."""
        return self._now_s

    async def sleep(self, seconds: float) -> None:
        """Return once `advance` has moved time forward by this many seconds."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # With a number, so that those with one time wake in the order in which they fell asleep.
        heapq.heappush(self._sleepers, (self._now_s + seconds, next(self._numbers), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Move time forward, and wake the sleepers that are due, in order of their times."""
        end_s = self._now_s + seconds
        # Tasks that were just started must fall asleep before time moves.
        await self._turn()
        while self._sleepers and self._sleepers[0][0] <= end_s:
            # Each sleeper wakes at its own time, so what it does next is counted from there.
            self._now_s, _, woken = heapq.heappop(self._sleepers)
            # The future of a sleeper that was cancelled is done already.
            if not woken.done():
                woken.set_result(None)
            await self._turn()
        self._now_s = end_s

    async def _turn(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)
