"""Models that keep more than one worker busy: their workers, and where their requests go.

A model is at its home alone until the home is busy with it. Then the next workers on the ring load
it too, and its requests go to the least busy of all that have it. When it is quiet again, its
requests go to its home.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from meshserve.core.catalog import catalog_index
from meshserve.core.mesh import copy_requests
from meshserve.core.processes import gateways, workers
from meshserve.core.values import commands, events, model, reports, snapshots

# The rest is left for the other models that each of these workers has.
BUSY = 0.7
"""The share of a worker that one model may take before another worker joins."""

# Growing is quick, because requests wait meanwhile; shrinking is slow, because a copy that is
# given up too early has to be loaded again.
GROW_AFTER_S, SHRINK_AFTER_S = 3.0, 60.0

LOAD_PAUSE_S = 30.0
"""After a load that failed no worker is added for so long."""

SMOOTHING = 0.5
"""Weight of the newest report, so that one busy second does not count as load."""


def worker_count(load: float, workers_max: int) -> int:
    """Return on how many workers a model should be: ⌈load ÷ BUSY⌉, within 1 and the maximum.

    `load` is the sum over the workers of the share of its time that each is busy with the model.
    """
    return max(1, min(workers_max, math.ceil(load / BUSY)))


@dataclass(slots=True)
class HotModel:
    """A model that was busy. `id` is the version that was busiest when that began.

    `loads`: the share of each worker that it takes; `places`: the workers that should have it, its
    home first; `loaded`: those of them that have it.
    """

    id: model.ModelId
    pool: str
    loads: dict[str, float] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    loaded: set[str] = field(default_factory=set)
    more_since_s: float | None = None
    less_since_s: float | None = None
    paused_until_s: float = 0.0

    @property
    def routed(self) -> tuple[str, ...]:
        """The workers that share its requests; none while its home gets all of them."""
        having = tuple(place for place in self.places if place in self.loaded)
        return having if len(having) > 1 else ()

    def add_report(self, worker_id: str, share: float) -> None:
        """Update a worker's load by the share in its newest report."""
        # The first report has nothing to be smoothed with.
        known = self.loads.get(worker_id, share)
        self.loads[worker_id] = known + SMOOTHING * (share - known)

    def is_due(self, count: int, now_s: float) -> bool:
        """Note that `count` workers are needed; return whether this has held for long enough."""
        current = max(1, len(self.places))
        self.more_since_s = (self.more_since_s or now_s) if count > current else None
        self.less_since_s = (self.less_since_s or now_s) if count < current else None
        if self.more_since_s is not None:
            return now_s - self.more_since_s >= GROW_AFTER_S and now_s >= self.paused_until_s
        return self.less_since_s is not None and now_s - self.less_since_s >= SHRINK_AFTER_S

    @property
    def is_over(self) -> bool:
        """Whether it is at its home alone, and that is enough."""
        return not self.places and self.more_since_s is None and sum(self.loads.values()) < BUSY


class HotModels:
    """All models that were busy, by name. Not saved: a new controller learns it from reports."""

    def __init__(
        self,
        index: catalog_index.CatalogIndex,
        workers_: workers.Workers,
        gateways_: gateways.Gateways,
        out: commands.Outbox,
    ) -> None:
        self.models: dict[str, HotModel] = {}
        self._index = index
        self._workers = workers_
        self._gateways = gateways_
        self._out = out

    def worker_reported(
        self, worker_id: str, demands: Sequence[reports.ModelDemand], now_s: float
    ) -> None:
        """Take in the demands of a worker's report, and order more or fewer copies."""
        shares: defaultdict[str, float] = defaultdict(float)
        for demand in demands:
            shares[demand.id.name] += demand.share
        # Versions of a model share its route, so they are busy together.
        for demand in sorted(demands, key=lambda demand: -demand.share):
            if demand.id.name not in self.models and shares[demand.id.name] >= BUSY:
                self._add(demand.id)
        for name, hot_model in list(self.models.items()):
            # A report names only the busiest models: a model without a share is quiet.
            if name in shares or worker_id in hot_model.loads:
                hot_model.add_report(worker_id, shares[name])
                self._follow(hot_model, now_s)

    def _add(self, id_: model.ModelId) -> None:
        declared = self._index.models.declared(id_)
        if declared is not None:
            self.models[id_.name] = HotModel(id_, declared.spec.pool)

    def _follow(self, hot_model: HotModel, now_s: float) -> None:
        pool = self._index.desired.pool(hot_model.pool)
        workers_max = min(pool.copies_max if pool else 1, len(self._workers.ready(hot_model.pool)))
        count = worker_count(sum(hot_model.loads.values()), workers_max)
        if hot_model.is_due(count, now_s):
            self._place(hot_model, count)

    def _place(self, hot_model: HotModel, count: int) -> None:
        """Have the model on `count` workers; on one, that is its home, as for any model."""
        before = hot_model.routed
        hot_model.places = (
            self._workers.homes(hot_model.pool, hot_model.id.name, count) if count > 1 else ()
        )
        hot_model.loaded = {
            place for place in hot_model.places if self._is_loaded(place, hot_model.id)
        }
        # The new number has to prove itself before it changes again.
        hot_model.more_since_s = hot_model.less_since_s = None
        hot_model.loads = {
            place: load
            for place, load in hot_model.loads.items()
            if place in hot_model.places or not hot_model.places
        }
        self._out.extend(
            copy_requests.load_command(self._index, place, hot_model.id)
            for place in hot_model.places
            if place not in hot_model.loaded
        )
        self._configure_if_rerouted(hot_model, before)

    def _is_loaded(self, worker_id: str, id_: model.ModelId) -> bool:
        copy = self._workers.records[worker_id].copies.get(id_)
        return copy is not None and copy.state == "ready"

    def _configure_if_rerouted(self, hot_model: HotModel, before: tuple[str, ...]) -> None:
        if hot_model.routed != before:
            self._gateways.configure()

    def workers_needed(self, pool: str) -> int:
        """Return how many workers the pool's busiest hot model needs, also if the pool has fewer.

        0 without a hot model.
        """
        settings = self._index.desired.pool(pool)
        copies_max = settings.copies_max if settings else 1
        loads = (sum(hot.loads.values()) for hot in self.models.values() if hot.pool == pool)
        return max((worker_count(load, copies_max) for load in loads), default=0)

    def copy_ensured(self, event: events.CopyEnsured, now_s: float) -> None:
        """Route requests to a worker that has loaded the model, or leave out one that could not."""
        hot_model = self.models.get(event.id.name)
        if hot_model is None or hot_model.id != event.id or event.worker_id not in hot_model.places:
            return
        before = hot_model.routed
        if event.failure:
            hot_model.places = tuple(
                place for place in hot_model.places if place != event.worker_id
            )
            # Without a pause every report would order the load that has just failed.
            hot_model.paused_until_s = now_s + LOAD_PAUSE_S
        else:
            hot_model.loaded.add(event.worker_id)
        self._configure_if_rerouted(hot_model, before)

    def forget_worker(self, worker_id: str) -> None:
        """Forget what a worker had whose process has ended."""
        for hot_model in self.models.values():
            hot_model.loads.pop(worker_id, None)
            hot_model.loaded.discard(worker_id)

    def follow_pool(self, pool: str) -> None:
        """Place the pool's hot models anew after a change of its ready workers."""
        for hot_model in list(self.models.values()):
            # One at its home alone needs nothing: the ring leads its requests to a new home.
            if hot_model.pool == pool and hot_model.places:
                workers_max = len(self._workers.ready(pool))
                self._place(hot_model, min(len(hot_model.places), workers_max))

    def forget_names(self, names: Iterable[str]) -> None:
        """Forget models that were declared anew or renamed: each begins at its home alone."""
        for name in names:
            hot_model = self.models.pop(name, None)
            if hot_model is not None and hot_model.routed:
                self._gateways.configure()

    def forget_quiet(self) -> None:
        """Forget the models that are quiet again."""
        for name in [name for name, hot_model in self.models.items() if hot_model.is_over]:
            del self.models[name]

    def routes(self) -> tuple[snapshots.HotRoute, ...]:
        """Return the routes of the models that several workers share."""
        return tuple(
            snapshots.HotRoute(
                hot_model.pool,
                (hot_model.id.name, *sorted(self._index.aliases_of(hot_model.id.name))),
                hot_model.routed,
            )
            for hot_model in self.models.values()
            if hot_model.routed
        )

    def check(self) -> None:
        """Assert that requests are routed to ready workers of the model's pool alone."""
        for name, hot_model in self.models.items():
            assert hot_model.id.name == name
            assert hot_model.loaded <= set(hot_model.places)
            assert self._index.pool_of(name) == hot_model.pool
            assert all(self._workers.is_ready(place) for place in hot_model.routed)
