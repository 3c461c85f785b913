"""The core's own residency and ring under a trace.

Every decision is the product's; only loads take no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench import traces
from meshserve.core.memory import copies, eviction, residency
from meshserve.core.memory import residency_events as ev
from meshserve.core.processes import hash_ring
from meshserve.core.values import model

# Loads take no time here, so none waits for another.
LOADS_PARALLEL = 1_000_000


@dataclass(frozen=True)
class Outcome:
    """Misses of the requests that count, and the load time that they cost."""

    requests: int
    misses: int
    lost_s: float

    @property
    def hit_ratio(self) -> float:
        """The share of hits."""
        return 1 - self.misses / self.requests


class Shelf:
    """One worker."""

    def __init__(self, models: traces.Models, budget_bytes: int, policy: str) -> None:
        limits = copies.WorkerLimits(model.Footprint(budget_bytes), loads_parallel=LOADS_PARALLEL)
        self.residency = residency.Residency(limits, eviction.POLICIES[policy])
        self._models = models
        self._ids = [model.ModelId(f"model-{number}") for number in range(len(models))]
        self._numbers = {str(id_.name): number for number, id_ in enumerate(self._ids)}

    def ask(self, number: int, now_s: float) -> bool:
        """Perform one request; tell whether the model was resident."""
        id_ = self._ids[number]
        key = self.residency.lease(id_, now_s)
        if key is not None:
            self._feed(ev.LeaseReleased(key), now_s)
            return True
        self._feed(ev.LeaseRequested(object(), id_), now_s)
        return False

    def _feed(self, event: ev.Event, now_s: float) -> None:
        waiting = [event]
        for pending in waiting:
            waiting.extend(
                self._performed(command) for command in self.residency.handle(pending, now_s)
            )

    def _performed(self, command: ev.Command) -> ev.Event:
        match command:
            case ev.FetchArtifact(id_, attempt):
                number = self._numbers[id_.name]
                return ev.ArtifactFetched(
                    id_, attempt, id_.name, self._need(number), float(self._models.load_s[number])
                )
            case ev.LoadCopy(key):
                number = self._numbers[key]
                return ev.CopyLoaded(key, self._need(number), float(self._models.load_s[number]))
            case ev.FreeCopy(key):
                return ev.CopyFreed(key)
            case ev.GrantLease(_, key):
                return ev.LeaseReleased(key)
        raise AssertionError(f"nothing of the kind should happen here: {command}")

    def _need(self, number: int) -> model.Footprint:
        return model.Footprint(int(self._models.bytes[number]))


def homes(workers: int, count: int) -> np.ndarray:
    """Return each model's worker by Envoy's ring, integers of shape (models,)."""
    ids = [f"default-{number}" for number in range(workers)]
    ring, places = hash_ring.HashRing(ids), {id_: place for place, id_ in enumerate(ids)}
    return np.array([places[ring.home(f"model-{number}")] for number in range(count)])


def replay(
    trace: traces.Trace,
    models: traces.Models,
    shelves: Sequence[Shelf],
    at: np.ndarray,
    counted_from: int,
) -> Outcome:
    """Replay the trace; requests before `counted_from` only fill the memory.

    `homes` has a worker's number for each model, shape (models,).
    """
    misses, lost_s = 0, 0.0
    for place, (number, now_s) in enumerate(
        zip(trace.models.tolist(), trace.at_s.tolist(), strict=True)
    ):
        if not shelves[at[number]].ask(number, now_s) and place >= counted_from:
            misses += 1
            lost_s += float(models.load_s[number])
    return Outcome(len(trace) - counted_from, misses, lost_s)


def optimum(
    trace: traces.Trace,
    models: traces.Models,
    budget_bytes: int,
    counted_from: int,
    values: np.ndarray,
) -> float:
    """Return a bound: the least sum of `values`, shape (models,), over requests that must miss.

    No policy can lose less, however far it sees ahead. It is the bound that Berger, Beckmann and
    Harchol-Balter call PFOO-L (2018), for sizes that differ, where Belady's rule is not the best.
    To hit, a model must stay from one request for it to the next, which takes its bytes for that
    many requests. In the mean over the trace all that stay take no more than the budget, so what is
    worth most for its bytes and time stays, up to that sum.
    """
    order = np.lexsort((np.arange(len(trace)), trace.models))
    sorted_models = trace.models[order]
    has_next = sorted_models[1:] == sorted_models[:-1]
    begins, ends = order[:-1][has_next], order[1:][has_next]
    is_counted = ends >= counted_from
    begins, ends = np.maximum(begins[is_counted], counted_from), ends[is_counted]
    kept = trace.models[ends]
    takes, worth = models.bytes[kept].astype(float) * np.maximum(ends - begins, 1), values[kept]
    best = np.argsort(takes / worth)
    taken = np.cumsum(takes[best])
    room = float(budget_bytes) * (len(trace) - counted_from)
    whole = int(np.searchsorted(taken, room, side="right"))
    won = float(worth[best][:whole].sum())
    if whole < len(best):
        before = taken[whole - 1] if whole else 0.0
        won += float(worth[best][whole]) * (room - before) / float(takes[best][whole])
    return float(values[trace.models[counted_from:]].sum()) - won
