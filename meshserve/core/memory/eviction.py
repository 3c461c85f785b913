"""Eviction policies and plans: pure functions that choose which copies leave memory, and where to.

A policy scores copies; a plan picks the fewest of the lowest scores. The memory pool performs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from meshserve.core.values import model

HALF_LIFE_S = 600.0
"""The time in which a past use loses half of its weight."""

DISPLACED_MAX = 16
"""How many offloaded copies a plan looks at to make room in host memory: bounds its work."""


class Usage(Protocol):
    """What a policy sees of a copy that is being used."""

    @property
    def need(self) -> model.Footprint:
        """The memory that it takes."""
        ...

    @property
    def uses(self) -> float:
        """The number of uses, this one included, each decayed by its age (see `decayed`)."""
        ...

    @property
    def load_s(self) -> float:
        """The seconds that the next load would take."""
        ...


Policy = Callable[[Usage, float, float], float]
"""(usage, now in s, age) → score; the lowest score leaves first.

`age` is the highest score of any copy that has left so far.
"""


def lru(_usage: Usage, now_s: float, _age: float) -> float:
    """Return a score by which the least recently used copy leaves first."""
    return now_s


def gdsf(usage: Usage, _now_s: float, age: float) -> float:
    """Return a score that keeps copies that are small, often used and slow to load.

    Greedy-Dual-Size-Frequency: age + uses × load time / bytes (L. Cherkasova, "Improving WWW
    Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy", HPL-98-69R1, 1998).
    """
    # A copy may take no bytes, by which nothing can be divided.
    size_bytes = max(1, usage.need.host_bytes + usage.need.gpu_bytes)
    # A load time that was never measured is 0.0; without a floor such a copy would have no score.
    return age + usage.uses * max(usage.load_s, 1e-6) / size_bytes


POLICIES: dict[str, Policy] = {"lru": lru, "gdsf": gdsf}


def decayed(uses: float, idle_s: float) -> float:
    """Return the weight of `uses` after `idle_s` seconds without another use."""
    return uses * math.exp2(-idle_s / HALF_LIFE_S)


class Candidate(NamedTuple):
    """A copy that may leave. `can_offload`: it can leave the GPU for host memory."""

    key: str
    footprint: model.Footprint
    can_offload: bool = False
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class HostBuffer:
    """Host memory for copies that leave the GPU.

    `free_bytes` now, `free_soon_bytes` once all evictions under way have ended; `offloaded` are the
    copies that could be evicted for others, lowest score first.
    """

    free_bytes: int = 0
    free_soon_bytes: int = 0
    offloaded: Iterable[Candidate] = ()


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """The keys of copies to free and to offload.

    `is_postponed`: more copies are to be offloaded, but host memory for them becomes free only
    with the evictions of this plan or earlier ones. A new plan after those will contain them.
    """

    free: tuple[str, ...] = ()
    offload: tuple[str, ...] = ()
    is_postponed: bool = False


NO_HOST_BUFFER = HostBuffer()


def plan(
    candidates: Iterable[Candidate],
    free: model.Footprint,
    need: model.Footprint,
    buffer: HostBuffer = NO_HOST_BUFFER,
) -> EvictionPlan | None:
    """Return the evictions that make `need` fit into `free`, or None if not even all would do.

    `candidates` come lowest score first, and are read only as far as needed. No victim of a plan
    could be left out. `free` and `need` may be negative: more is booked than there is.
    """
    if need.fits_in(free):
        return EvictionPlan()
    victims: list[Candidate] = []
    # Greedy by score. A bigger candidate may then make smaller ones before it needless.
    for candidate in candidates:
        if _is_helpful(candidate.footprint, free, need):
            victims.append(candidate)
            free = free.plus(candidate.footprint)
        if need.fits_in(free):
            return _with_destinations(_without_needless(victims, free, need), buffer)
    return None


def _is_helpful(takes: model.Footprint, free: model.Footprint, need: model.Footprint) -> bool:
    return (need.host_bytes > free.host_bytes and takes.host_bytes > 0) or (
        need.gpu_bytes > free.gpu_bytes and takes.gpu_bytes > 0
    )


def _without_needless(
    victims: Sequence[Candidate], free: model.Footprint, need: model.Footprint
) -> list[Candidate]:
    """Return the victims, highest score first, without those that a bigger one made needless.

    `free` counts all victims as gone. The highest score is spared first.
    """
    needed: list[Candidate] = []
    for victim in reversed(victims):
        free_without = free.minus(victim.footprint)
        if need.fits_in(free_without):
            free = free_without
        else:
            needed.append(victim)
    return needed


def _with_destinations(victims: Sequence[Candidate], buffer: HostBuffer) -> EvictionPlan:
    """Return the plan that offloads victims, the highest score first, while host memory lasts.

    The others are freed, and so are offloaded copies of lower scores that make room for victims.
    """
    free: list[str] = []
    offload: list[str] = []
    free_bytes, free_soon_bytes, is_postponed = buffer.free_bytes, buffer.free_soon_bytes, False
    displaced = _Displaced(buffer.offloaded)
    # The highest scores get host memory first: they are the most likely to be used again.
    for victim in victims:
        moved_bytes = victim.footprint.gpu_bytes
        if not (victim.can_offload and moved_bytes):
            free.append(victim.key)
            continue
        # Postponed offloads have claimed memory that is free soon: it may be the smaller amount.
        if moved_bytes <= min(free_bytes, free_soon_bytes):
            offload.append(victim.key)
            free_bytes -= moved_bytes
            free_soon_bytes -= moved_bytes
            continue
        lacking_bytes = moved_bytes - free_soon_bytes
        gained_bytes = displaced.evict(lacking_bytes, victim.score) if lacking_bytes > 0 else 0
        if gained_bytes >= lacking_bytes:
            free_soon_bytes += gained_bytes - moved_bytes
            is_postponed = True
        else:
            free.append(victim.key)
    free.extend(displaced.keys)
    return EvictionPlan(tuple(reversed(free)), tuple(reversed(offload)), is_postponed)


class _Displaced:
    """Offloaded copies that are evicted to make room in host memory; `keys` are those chosen."""

    def __init__(self, offloaded: Iterable[Candidate]) -> None:
        self.keys: list[str] = []
        self._unread = iter(offloaded)
        self._remaining: list[Candidate] = []

    def evict(self, lacking_bytes: int, score: float) -> int:
        """Choose copies of lower scores with `lacking_bytes` together; return their host bytes.

        Chooses none and returns 0 if they have too few, so that no copy leaves in vain.
        """
        self._read(lacking_bytes)
        lower = [candidate for candidate in self._remaining if candidate.score < score]
        total = _host_bytes(lower)
        if total < lacking_bytes:
            return 0
        chosen = _without_needless(lower, model.Footprint(total), model.Footprint(lacking_bytes))
        self._remaining = [other for other in self._remaining if other not in chosen]
        self.keys.extend(candidate.key for candidate in chosen)
        return _host_bytes(chosen)

    def _read(self, lacking_bytes: int) -> None:
        """Read on until those not chosen yet have `lacking_bytes`, or the bound is reached."""
        while len(self._remaining) < DISPLACED_MAX and _host_bytes(self._remaining) < lacking_bytes:
            candidate = next(self._unread, None)
            if candidate is None:
                return
            self._remaining.append(candidate)


def _host_bytes(candidates: Iterable[Candidate]) -> int:
    return sum(candidate.footprint.host_bytes for candidate in candidates)
