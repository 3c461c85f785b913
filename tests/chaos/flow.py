"""Open-loop traffic: requests at a steady rate by all clients, whatever answers take."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import numpy as np

from meshserve import tasks
from tests.chaos import callers, oracle, world

T = TypeVar("T")
STEP_S = 0.01
WARM_S, RAMP_S = 120.0, 3.0
SHARES = {
    world.STILL: 40,
    world.BIG: 20,
    world.CLASSES: 10,
    world.ISOLATED: 5,
    world.TURNING: 10,
    world.FILED: 10,
    world.FLEETING: 5,
    world.LLM: 3,
}
# Rows of a request, by how often. JSON of 5,000 rows is decoded in a thread of the worker, that of
# 40,000 in a process of its own.
ROWS = {1: 1000, 2: 100, 64: 50, 5000: 4, 40_000: 1}
BEHIND_S = 0.5
UNDER_WAY_MAX = 90
"""Fewer than the connections of the clients' pools: nothing may wait in a client."""
JOINED, JOINED_SHARE = 8, 0.03
"""So many requests for one model are sent at once, in this share of the sendings."""


class Flow:
    """Sends requests of all kinds and lets the judge decide on what comes."""

    def __init__(self, arena: world.World, clients: callers.Callers, seed: int) -> None:
        self._arena = arena
        self._ways, self._llm_ways = clients.ways(), clients.llm_ways()
        self._chance = random.Random(seed)
        self._values = np.random.default_rng(seed)
        self._sent: set[asyncio.Task[None]] = set()
        self.asked = 0
        self.unsent = 0

    async def warm_up(self) -> None:
        """Return once each declared model and way has answered: clients import what they need."""
        end_s = time.monotonic() + WARM_S
        absent = self._arena.subjects[world.FLEETING]
        for subject in itertools.chain(*self._arena.subjects.values()):
            if subject not in absent:
                for way in self._ways_to(subject):
                    await self._until_answered(way, subject, end_s)

    async def demand_newest(self, subjects: Sequence[oracle.Subject], end_s: float) -> None:
        """Complain of each model that does not answer by its newest content before `end_s`."""
        begin_s = time.monotonic()
        for subject in subjects:
            while True:
                way = next(iter(self._ways_to(subject)))
                outcome = await self.outcome(way, subject, self._question(subject, 1))
                if subject.is_right(outcome, {subject.factor}):
                    break
                if time.monotonic() > end_s:
                    said = "another content" if outcome.answer is not None else outcome.text
                    self._arena.judge.complain(
                        f"{subject.name} is not {subject.factor:g} at the end: {said}", begin_s
                    )
                    break
                await asyncio.sleep(world.POLL_S)

    async def _until_answered(self, way: str, subject: oracle.Subject, end_s: float) -> None:
        question = self._question(subject, 1)
        while (failed := await self.outcome(way, subject, question)).answer is None:
            if time.monotonic() > end_s:
                raise world.Late(f"{subject.name} by {way}: {failed.status}: {failed.text}")
            await asyncio.sleep(world.POLL_S)

    @contextlib.asynccontextmanager
    async def flowing(self, per_s: float) -> AsyncIterator[None]:
        """Send `per_s` requests a second; at the end await what was sent."""
        sending = tasks.spawn(self._send(per_s), "send", is_awaited=True)
        try:
            yield
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await asyncio.gather(*self._sent)

    async def _send(self, per_s: float) -> None:
        begin_s, due = time.monotonic(), 0
        while True:
            # A client machine that was too slow for a moment does not make up for it at once.
            due = max(due, int((time.monotonic() - begin_s - BEHIND_S) * per_s))
            while due < (time.monotonic() - begin_s) * per_s:
                count = JOINED if self._chance.random() < JOINED_SHARE else 1
                group = pick(self._chance, SHARES)
                subject = zipf(self._chance, self._arena.subjects[group])
                # A big model multiplies each row by its padding: many rows would take gigabytes.
                is_single = count > 1 or group == world.BIG
                rows = 1 if is_single else pick(self._chance, ROWS)
                # On a machine that others use too, answers may take longer than questions come.
                if len(self._sent) < UNDER_WAY_MAX:
                    for _ in range(count):
                        self._start(subject, rows)
                else:
                    self.unsent += count
                due += count
            await asyncio.sleep(STEP_S)

    def _start(self, subject: oracle.Subject, rows: int) -> None:
        way = self._chance.choice(list(self._ways_to(subject)))
        asked = self._ask(way, subject, self._question(subject, rows))
        task = tasks.spawn(asked, subject.name, is_awaited=True)
        self._sent.add(task)
        task.add_done_callback(self._sent.discard)

    async def _ask(self, way: str, subject: oracle.Subject, x: np.ndarray) -> None:
        self.asked += 1
        self._arena.judge.decide(await self.outcome(way, subject, x))

    async def outcome(self, way: str, subject: oracle.Subject, x: np.ndarray) -> oracle.Outcome:
        """Ask once, and return what came."""
        sent_s = time.monotonic()
        try:
            answer = await self._ways_to(subject)[way](subject.name, x)
        except callers.Refused as refused:
            ended_s = time.monotonic()
            return oracle.Outcome(subject, way, x, sent_s, ended_s, refused.status, refused.text)
        return oracle.Outcome(subject, way, x, sent_s, time.monotonic(), answer=answer)

    def _ways_to(self, subject: oracle.Subject) -> dict[str, callers.Ask]:
        return self._llm_ways if subject.name == world.LLM else self._ways

    def _question(self, subject: oracle.Subject, rows: int) -> np.ndarray:
        if subject.name == world.LLM:
            return callers.phrase(self._chance.randrange(10))
        return self._values.standard_normal((rows, 8), np.float32)


def pick(chance: random.Random, weights: dict[T, int]) -> T:
    """Return one key by the weights."""
    return chance.choices(list(weights), list(weights.values()))[0]


def zipf(chance: random.Random, subjects: Sequence[oracle.Subject]) -> oracle.Subject:
    """Return one of them, the first ones most often."""
    return chance.choices(subjects, [1 / (rank + 1) for rank in range(len(subjects))])[0]
