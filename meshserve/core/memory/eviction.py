"""Who leaves: policies and plans as functions of a snapshot. Nothing here knows how a copy is freed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from meshserve.core.values import model

HALF_LIFE_S = 600.0
"""How fast past uses lose weight in GDSF."""

MAKE_WAY_MAX = 16
"""How many parked copies may leave host memory for one that is parked now."""


class Usage(Protocol):
    """What a policy may know of a copy when it is used. `uses` is the frequency with past uses decayed, this one included."""

    @property
    def need(self) -> model.Footprint:
        """What it takes in memory."""
        ...

    @property
    def uses(self) -> float:
        """How often it is used."""
        ...

    @property
    def load_s(self) -> float:
        """What bringing it back costs."""
        ...


Policy = Callable[[Usage, float, float], float]
"""(usage, now in s, age) → score; the copy with the lowest score leaves first. `age` is the highest score of any that had to leave."""


def lru(_usage: Usage, now_s: float, _age: float) -> float:
    """Least recently used leaves first."""
    return now_s


def gdsf(usage: Usage, _now_s: float, age: float) -> float:
    """Greedy-Dual-Size-Frequency (Cherkasova 1998): age + uses × load time / bytes. Small, hot and slow to load stays."""
    size_bytes = max(1, usage.need.host_bytes + usage.need.gpu_bytes)
    return age + usage.uses * max(usage.load_s, 1e-6) / size_bytes


POLICIES: dict[str, Policy] = {"lru": lru, "gdsf": gdsf}


def decayed(uses: float, idle_s: float) -> float:
    """Uses after not being used for a while: half after `HALF_LIFE_S`."""
    return uses * math.exp2(-idle_s / HALF_LIFE_S)


class Candidate(NamedTuple):
    """A copy that could leave: nobody uses it and nothing pins it. `can_offload`: it may leave the GPU alone."""

    key: str
    footprint: model.Footprint
    can_offload: bool = False
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class HostBuffer:
    """Host memory for those who only leave the GPU: what is free now, what soon, and the parked who could make way, cheapest first."""

    now_bytes: int = 0
    soon_bytes: int = 0
    older: Iterable[Candidate] = ()


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """Who is freed altogether, and who only leaves the GPU. `is_postponed`: others are to be parked once those that leave have made way."""

    free: tuple[str, ...] = ()
    park: tuple[str, ...] = ()
    is_postponed: bool = False


NO_HOST_BUFFER = HostBuffer()


def plan(
    candidates: Iterable[Candidate],
    room: model.Footprint,
    need: model.Footprint,
    shelf: HostBuffer = NO_HOST_BUFFER,
) -> EvictionPlan | None:
    """The fewest of the cheapest candidates whose leaving makes `need` fit into `room`; None if not even all of them would do.

    `candidates` come cheapest first and are read only as far as needed. `room` and `need` may be negative.
    """
    if need.fits_in(room):
        return EvictionPlan()
    victims: list[Candidate] = []
    left = room
    for candidate in candidates:
        if _helps(candidate.footprint, left, need):
            victims.append(candidate)
            left = left.plus(candidate.footprint)
        if need.fits_in(left):
            return _placed(_needed(victims, left, need), shelf)
    return None


def _helps(takes: model.Footprint, room: model.Footprint, need: model.Footprint) -> bool:
    return (need.host_bytes > room.host_bytes and takes.host_bytes > 0) or (
        need.gpu_bytes > room.gpu_bytes and takes.gpu_bytes > 0
    )


def _needed(
    victims: Sequence[Candidate], left: model.Footprint, need: model.Footprint
) -> list[Candidate]:
    """The victims, dearest first, without those that a later, bigger one made needless: the dearest are evictable first."""
    needed: list[Candidate] = []
    for victim in reversed(victims):
        without = left.minus(victim.footprint)
        if need.fits_in(without):
            left = without
        else:
            needed.append(victim)
    return needed


def _placed(leaving: Sequence[Candidate], shelf: HostBuffer) -> EvictionPlan:
    """Where each goes, the dearest first: into host memory if there is room, or if cheaper ones there can make it; else it is freed."""
    free: list[str] = []
    park: list[str] = []
    now_bytes, soon_bytes, is_postponed = shelf.now_bytes, shelf.soon_bytes, False
    older = _MakingWay(shelf.older)
    for victim in leaving:
        moved_bytes = victim.footprint.gpu_bytes
        if not (victim.can_offload and moved_bytes):
            free.append(victim.key)
        elif moved_bytes <= min(now_bytes, soon_bytes):
            park.append(victim.key)
            now_bytes -= moved_bytes
            soon_bytes -= moved_bytes
        elif moved_bytes <= soon_bytes or older.make_room(moved_bytes - soon_bytes, victim.score):
            soon_bytes += older.take() - moved_bytes
            is_postponed = True
        else:
            free.append(victim.key)
    free.extend(older.gone)
    return EvictionPlan(tuple(reversed(free)), tuple(reversed(park)), is_postponed)


class _MakingWay:
    """Parked copies that leave for a dearer one; read only as far as needed, and none goes unless enough do."""

    def __init__(self, older: Iterable[Candidate]) -> None:
        self.gone: list[str] = []
        self._older = iter(older)
        self._read: list[Candidate] = []
        self._chosen: list[Candidate] = []

    def make_room(self, lacking_bytes: int, score: float) -> bool:
        """Choose the cheapest below `score` that have so many bytes together; False if there are not enough."""
        while (
            len(self._read) < MAKE_WAY_MAX
            and sum(each.footprint.host_bytes for each in self._read) < lacking_bytes
        ):
            candidate = next(self._older, None)
            if candidate is None:
                break
            self._read.append(candidate)
        cheaper = [each for each in self._read if each.score < score]
        if sum(each.footprint.host_bytes for each in cheaper) < lacking_bytes:
            return False
        self._chosen = _needed(
            cheaper,
            model.Footprint(sum(each.footprint.host_bytes for each in cheaper)),
            model.Footprint(lacking_bytes),
        )
        return True

    def take(self) -> int:
        """Let the chosen go; their bytes in host memory."""
        taken, self._chosen = self._chosen, []
        self._read = [each for each in self._read if each not in taken]
        self.gone.extend(each.key for each in taken)
        return sum(each.footprint.host_bytes for each in taken)
