"""How many workers a pool should have, from what its workers have measured. Pure.

Growing is quick, because requests wait meanwhile; shrinking is slow, because the models of a worker
that goes are loaded again by the others. A pool that changes often stays as big as it was.
"""

from __future__ import annotations

import collections
import math
from dataclasses import dataclass, field
from typing import NamedTuple

from meshserve.core.values import desired

BUSY, CALM = 0.7, 0.5
"""The part of a core that a worker may use before another one comes, and that each of those left
may use after one has gone. Between the two nothing changes."""

FULL = 0.8
"""The part of a worker's budget that models in use may fill after one has gone."""

LOST, LOST_LITTLE = 0.05, 0.01
QUEUED, QUEUED_LITTLE = 0.5, 0.1
"""Shares of the time, lost to models that come back or to loads that wait for loads, from which on
another worker comes, and below which one may go."""

SMOOTHING = 0.3
"""Weight of the newest measurement: one busy second is no load."""

HOUR_S = 3600.0
CHANGES_MAX = 12
"""Changes in an hour. After them a pool that still needs more gets all that it may have, and keeps
them: loads that come and go in minutes cost more than the workers."""


class PoolLoad(NamedTuple):
    """What a pool of `workers` ready workers has to do.

    `cores` is the sum of what they use, no more than 1 of each. `hot` is the number of workers that
    a model needs which keeps one busy, 0 without such a model. `lost` and `queued` are means of
    `reports.WorkerUse`. `used` is the memory of the models in use, in budgets of one worker.
    `is_used`: it had requests lately. `has_pinned`: one of its models must stay loaded.
    """

    workers: int
    cores: float = 0.0
    hot: int = 0
    lost: float = 0.0
    queued: float = 0.0
    used: float = 0.0
    is_used: bool = True
    has_pinned: bool = False


class Need(NamedTuple):
    """A number of workers, and why it must not be smaller."""

    workers: int
    reason: str


NO_NEED = Need(0, "nobody calls its models")
PINNED_NEED = Need(1, "a model is pinned")
SOME_NEED = Need(1, "it has little to do")
FIRST_NEED = Need(1, "its models are called")
"""The least need of a pool that is used: the first one is enough, the second one is needed."""
KEPT = f"it changed {CHANGES_MAX} times within an hour, and keeps its workers until that is over"
LIMITED = "its configuration changed"
WORKS = "its workers are busy"
LOSES = "requests wait for models that had been evicted"


def needed_now(load: PoolLoad) -> Need:
    """Return how many workers the pool needs now, for a decision to grow."""
    # An idle process takes a little time too, and would be a need for one worker.
    if not load.is_used:
        return PINNED_NEED if load.has_pinned else NO_NEED
    return max(
        FIRST_NEED,
        Need(math.ceil(load.cores / BUSY), WORKS),
        Need(load.hot, "a model keeps more workers busy"),
        _one_more(load, LOSES, is_needed=load.lost >= LOST),
        _one_more(load, "loads wait for other loads", is_needed=load.queued >= QUEUED),
        key=lambda need: need.workers,
    )


def enough(load: PoolLoad) -> Need:
    """Return how many workers would be enough, for a decision to shrink."""
    if not load.is_used:
        return PINNED_NEED if load.has_pinned else NO_NEED
    is_troubled = load.lost >= LOST_LITTLE or load.queued >= QUEUED_LITTLE
    return max(
        SOME_NEED,
        Need(math.ceil(load.cores / CALM), WORKS),
        Need(load.hot, "a model keeps several workers busy"),
        Need(math.ceil(load.used / FULL), "its models fill the memory of these"),
        Need(load.workers if is_troubled else 0, "requests wait for loads"),
        key=lambda need: need.workers,
    )


def _one_more(load: PoolLoad, reason: str, *, is_needed: bool) -> Need:
    return Need(load.workers + 1 if is_needed else 0, reason)


@dataclass(slots=True)
class PoolSize:
    """The number of workers that one pool should have, what it was `before`, and why it changed.

    `is_kept`: it would be smaller by now, had it not changed so often. `more_since_s` and
    `less_since_s` tell since when it has been too small or too big. `rest` is what was needed at
    most since then. `changes` counts all, `changes_s` are the last ones' times.
    """

    count: int
    before: int = 0
    reason: str = ""
    changes: int = 0
    is_kept: bool = False
    load: PoolLoad | None = None
    more_since_s: float | None = None
    less_since_s: float | None = None
    rest: Need = NO_NEED
    changes_s: collections.deque[float] = field(
        default_factory=lambda: collections.deque(maxlen=CHANGES_MAX)
    )

    def follow(self, load: PoolLoad, pool: desired.PoolSettings, now_s: float) -> None:
        """Take in the load at one moment, and change the number where a need has lasted."""
        scaling = pool.scaling or desired.ScalingSettings(pool.workers)
        self.load = load = _smoothed(self.load, load)
        more, rest = _bounded(needed_now(load), pool), _bounded(enough(load), pool)
        # While workers of the pool start, its load can't show whether more are needed.
        is_more = more.workers > self.count and load.workers >= self.count
        self.more_since_s = _since(self.more_since_s, now_s, is_on=is_more)
        self.less_since_s = _since(self.less_since_s, now_s, is_on=rest.workers < self.count)
        self.rest = rest if self.less_since_s == now_s else max(self.rest, rest)
        if _has_lasted(self.more_since_s, scaling.grow_after_s, now_s):
            self.set(pool.workers if self._is_restless(now_s) else more.workers, more.reason, now_s)
        is_less = (
            _has_lasted(self.less_since_s, scaling.shrink_after_s, now_s)
            and self.rest.workers < self.count
        )
        self.is_kept = is_less and self._is_restless(now_s)
        if is_less and not self.is_kept:
            self.set(self.rest.workers, self.rest.reason, now_s)

    def set(self, count: int, reason: str, now_s: float) -> None:
        """Have `count` workers from now on. The new number must prove itself before the next."""
        self.before, self.count, self.reason = self.count, count, reason
        self.changes += 1
        self.changes_s.append(now_s)
        self.more_since_s = self.less_since_s = None

    def limit(self, pool: desired.PoolSettings) -> None:
        """Keep the bounds of a configuration, which may be others than when it was chosen."""
        count = min(max(self.count, pool.workers_min), pool.workers)
        if count != self.count:
            self.before, self.count, self.reason = self.count, count, LIMITED
            self.changes += 1

    @property
    def words(self) -> str:
        """Why it has this number now: why it changed last, or why it does not shrink."""
        return KEPT if self.is_kept else self.reason

    def _is_restless(self, now_s: float) -> bool:
        return len(self.changes_s) == CHANGES_MAX and now_s - self.changes_s[0] < HOUR_S


def _since(since_s: float | None, now_s: float, *, is_on: bool) -> float | None:
    if not is_on:
        return None
    return now_s if since_s is None else since_s


def _has_lasted(since_s: float | None, long_s: float, now_s: float) -> bool:
    return since_s is not None and now_s - since_s >= long_s


def _bounded(need: Need, pool: desired.PoolSettings) -> Need:
    return need._replace(workers=min(max(need.workers, pool.workers_min), pool.workers))


def _smoothed(before: PoolLoad | None, load: PoolLoad) -> PoolLoad:
    if before is None:
        return load
    mixed = {
        name: old + SMOOTHING * (getattr(load, name) - old)
        for name in ("cores", "lost", "queued")
        for old in (getattr(before, name),)
    }
    return load._replace(**mixed)
