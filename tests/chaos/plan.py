"""Which faults strike when: the same list for the same seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

QUIET_S = 10.0
"""Time at the end without new faults, in which the last ones are felt."""


class Stroke(NamedTuple):
    """One fault at a time after the start; `seed` decides everything that it chooses."""

    at_s: float
    fault: str
    seed: int


def strokes(
    seed: int, time_s: float, weights: Mapping[str, float], only: Sequence[str] = ()
) -> list[Stroke]:
    """Return the faults of a run of `time_s`, in the order of their times.

    Each fault comes as often as its weight says, in strokes a minute, and once at least: a short
    run too has all of them. Raises ValueError for an unknown name in `only`.
    """
    unknown = set(only) - weights.keys()
    if unknown:
        raise ValueError(f"no fault {min(unknown)!r}; there are: {', '.join(sorted(weights))}")
    chance = random.Random(seed)
    planned = [
        Stroke(chance.uniform(0, time_s - QUIET_S), fault, chance.randrange(1 << 30))
        for fault in sorted(only or weights)
        for _ in range(max(1, round(weights[fault] * time_s / 60)))
    ]
    return sorted(planned)
