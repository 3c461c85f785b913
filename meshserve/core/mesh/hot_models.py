"""Models that one worker is not enough for: on which workers each is, and which of these its requests go to.

A model is at its home alone until that is busy with it. Then the workers that come next on the ring load it too, and its requests go to the
least busy of all that have it; when it is quiet again they go to its home.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from meshserve.core.catalog import catalog_index
from meshserve.core.processes import gateways, workers
from meshserve.core.values import commands, events, model, reports, snapshots

BUSY = 0.7
"""How busy each of a model's workers shall be with it, where there are enough of them."""

GROW_AFTER_S, SHRINK_AFTER_S = 3.0, 60.0
REST_S = 30.0
"""How long nothing is added after a load that failed."""

SMOOTHING = 0.5


def wanted(load: float, workers_max: int) -> int:
    """On how many workers a model should be that keeps so many busy: ⌈load ÷ BUSY⌉, within what may be."""
    return max(1, min(workers_max, math.ceil(load / BUSY)))


@dataclass(slots=True)
class HotModel:
    """A model that was busy; `id` is the version of which there was most to do when that began.

    `loads`: how busy it keeps each worker; `places`: where it shall be, its home first; `loaded`: where it is.
    """

    id: model.ModelId
    pool: str
    loads: dict[str, float] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    loaded: set[str] = field(default_factory=set)
    more_since_s: float | None = None
    less_since_s: float | None = None
    rests_until_s: float = 0.0

    @property
    def routed(self) -> tuple[str, ...]:
        """The workers that answer for it; none while its home does alone."""
        there = tuple(place for place in self.places if place in self.loaded)
        return there if len(there) > 1 else ()

    def hears(self, worker_id: str, share: float) -> None:
        """A worker told how busy it is with the model. One moment more or less doesn't count for much."""
        known = self.loads.get(worker_id, share)
        self.loads[worker_id] = known + SMOOTHING * (share - known)

    def notes(self, count: int, now_s: float) -> bool:
        """Note that it is wanted on so many workers; whether more, or fewer, have been wanted for long enough."""
        now = max(1, len(self.places))
        self.more_since_s = (self.more_since_s or now_s) if count > now else None
        self.less_since_s = (self.less_since_s or now_s) if count < now else None
        if self.more_since_s is not None:
            return now_s - self.more_since_s >= GROW_AFTER_S and now_s >= self.rests_until_s
        return self.less_since_s is not None and now_s - self.less_since_s >= SHRINK_AFTER_S

    @property
    def is_over(self) -> bool:
        """Whether it is at its home alone, and that is enough."""
        return not self.places and self.more_since_s is None and sum(self.loads.values()) < BUSY


class HotModels:
    """All models that were busy, by name. Nothing here is saved: a controller that begins anew finds out again."""

    def __init__(
        self, book: catalog_index.CatalogIndex, workers: workers.Workers, gates_: gateways.Gateways
    ) -> None:
        self.models: dict[str, HotModel] = {}
        self._book = book
        self._workers = workers
        self._gates = gates_

    def reported(
        self, worker_id: str, demands: Sequence[reports.ModelDemand], now_s: float
    ) -> Iterator[commands.Command]:
        """What a worker's report asks for."""
        shares: defaultdict[str, float] = defaultdict(float)
        for demand in demands:
            shares[demand.id.name] += demand.share
        for demand in sorted(demands, key=lambda each: -each.share):
            if demand.id.name not in self.models and shares[demand.id.name] >= BUSY:
                self._meet(demand.id)
        for name, hot in list(self.models.items()):
            if name in shares or worker_id in hot.loads:
                hot.hears(worker_id, shares[name])
                yield from self._follow(hot, now_s)

    def _meet(self, id_: model.ModelId) -> None:
        declared = self._book.models.declared(id_)
        if declared is not None:
            self.models[id_.name] = HotModel(id_, declared.spec.pool)

    def _follow(self, hot: HotModel, now_s: float) -> Iterator[commands.Command]:
        pool = self._book.desired.pool(hot.pool)
        workers_max = min(pool.copies_max if pool else 1, len(self._workers.ready(hot.pool)))
        count = wanted(sum(hot.loads.values()), workers_max)
        if hot.notes(count, now_s):
            yield from self._place(hot, count)

    def _place(self, hot: HotModel, count: int) -> Iterator[commands.Command]:
        """Have it on so many workers; on one, that is its home, as any model is."""
        before = hot.routed
        hot.places = self._workers.homes(hot.pool, hot.id.name, count) if count > 1 else ()
        hot.loaded = {place for place in hot.places if self._has(place, hot.id)}
        hot.more_since_s = hot.less_since_s = None
        hot.loads = {
            place: load
            for place, load in hot.loads.items()
            if place in hot.places or not hot.places
        }
        for place in hot.places:
            if place not in hot.loaded:
                yield self._ensure(place, hot.id)
        yield from self._routed(hot, before)

    def _has(self, worker_id: str, id_: model.ModelId) -> bool:
        copy = self._workers.records[worker_id].copies.get(id_)
        return copy is not None and copy.state == "ready"

    def _ensure(self, worker_id: str, id_: model.ModelId) -> commands.EnsureLoaded:
        declared = self._book.models.declared(id_)
        return commands.EnsureLoaded(
            worker_id, id_, declared.spec.load_timeout_s if declared else 0.0
        )

    def _routed(self, hot: HotModel, before: tuple[str, ...]) -> Iterator[commands.Command]:
        if hot.routed != before:
            yield from self._gates.configure()

    def ensured(self, event: events.CopyEnsured, now_s: float) -> Iterator[commands.Command]:
        """A load came to its end: the model answers there too, or it is left as it is for a while."""
        hot = self.models.get(event.id.name)
        if hot is None or hot.id != event.id or event.worker_id not in hot.places:
            return
        before = hot.routed
        if event.failure:
            hot.places = tuple(place for place in hot.places if place != event.worker_id)
            hot.rests_until_s = now_s + REST_S
        else:
            hot.loaded.add(event.worker_id)
        yield from self._routed(hot, before)

    def forget_worker(self, worker_id: str) -> None:
        """The worker's process holds nothing any more."""
        for hot in self.models.values():
            hot.loads.pop(worker_id, None)
            hot.loaded.discard(worker_id)

    def follow_pool(self, pool: str) -> Iterator[commands.Command]:
        """What a change among the pool's ready workers asks for."""
        for hot in list(self.models.values()):
            if hot.pool == pool and hot.places:
                yield from self._place(hot, min(len(hot.places), len(self._workers.ready(pool))))

    def forget_names(self, names: Iterable[str]) -> Iterator[commands.Command]:
        """The models of these names, or what they mean, are not what they were: each is at its home alone, until it is busy again."""
        for name in names:
            hot = self.models.pop(name, None)
            if hot is not None and hot.routed:
                yield from self._gates.configure()

    def tidy(self) -> None:
        """Forget what is quiet."""
        for name in [name for name, hot in self.models.items() if hot.is_over]:
            del self.models[name]

    def routes(self) -> tuple[snapshots.HotRoute, ...]:
        """What gateways must know."""
        busy = (hot for hot in self.models.values() if hot.routed)
        return tuple(
            snapshots.HotRoute(
                hot.pool, (hot.id.name, *sorted(self._book.aliases_of(hot.id.name))), hot.routed
            )
            for hot in busy
        )

    def check(self) -> None:
        """State what always holds: what is routed is in the model's pool, on workers that are ready."""
        for name, hot in self.models.items():
            assert hot.id.name == name
            assert hot.loaded <= set(hot.places)
            assert self._book.pool_of(name) == hot.pool
            assert all(self._workers.is_ready(place) for place in hot.routed)
