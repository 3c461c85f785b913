"""How many replicas an LLM should have: a function of what its engines told."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from meshserve.core.values import llm_spec

UP_AFTER_S = 10.0
"""So long requests must have waited inside the engines before another one is started."""

DOWN_AFTER_S = 120.0
"""So long there must have been fewer requests than replicas before one goes: starting one again takes about as long."""


class LlmLoad(NamedTuple):
    """What bears on the number. `wanted` is what it was so far, `ready` how many of them serve.

    `pressed_s` and `quiet_s`: for how long there has been too much, or too little, to do. `is_used`: not idle for as long as it may be.
    """

    wanted: int
    ready: int
    pressed_s: float = 0.0
    quiet_s: float = 0.0
    is_used: bool = True


def wanted(spec: llm_spec.LlmSpec, load: LlmLoad) -> int:
    """The number from now on: one more or one fewer at a time, within the bounds; the least once nobody uses it."""
    least = max(spec.replicas_min, 1 if load.is_used else 0)
    if not load.is_used:
        return least
    most = max(spec.replicas_max, least)
    count = min(max(load.wanted, least), most)
    if load.pressed_s >= UP_AFTER_S and load.ready >= count:
        return min(count + 1, most)
    if load.quiet_s >= DOWN_AFTER_S:
        return max(count - 1, least)
    return count


def is_pressed(reports: Collection[llm_spec.LlmReport]) -> bool:
    """Whether requests wait inside the engines."""
    return any(each.waiting for each in reports)


def is_quiet(reports: Collection[llm_spec.LlmReport]) -> bool:
    """Whether one engine fewer would still leave none without a request to itself."""
    return not is_pressed(reports) and sum(each.running for each in reports) < len(reports)
