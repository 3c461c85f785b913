"""The figures of models over all workers and their restarts: totals that never fall.

So many models have a series of their own; the uses of all others count in `rest`. What was counted
stays where it was counted: a model that gets a series later begins there at zero, and one that
loses its place goes on from its old totals if it comes back.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from meshserve.core.catalog import catalog_index
from meshserve.core.values import model, model_figures

REVIEW_S = 60.0
"""How often places are given anew, and uses of before count half."""

LEAD = 2.0
"""A model takes the place of one that is used less by this factor; else they would alternate."""

KEPT_PER_PLACE = 4
"""Models without a place whose totals are remembered, for each place."""


@dataclass(slots=True)
class SavedTotals:
    """All that a later controller needs to go on counting.

    `batches` has the process and number of the last batch of each worker. `kept` are totals of
    models without a place.
    """

    batches: dict[str, tuple[int, int]] = field(default_factory=dict)
    rest: model_figures.ModelFigures = field(default_factory=model_figures.ModelFigures)
    shown: dict[model.ModelId, model_figures.ModelFigures] = field(default_factory=dict)
    kept: dict[model.ModelId, model_figures.ModelFigures] = field(default_factory=dict)


class ModelTotals:
    """Adds up the batches of workers, by the models and the limit that the catalog has."""

    def __init__(self, index: catalog_index.CatalogIndex) -> None:
        self._index = index
        self._saved = SavedTotals()
        self._uses: dict[model.ModelId, float] = {}
        self._reviewed_s = 0.0

    @property
    def shown(self) -> Mapping[model.ModelId, model_figures.ModelFigures]:
        """The models with a series of their own."""
        return MappingProxyType(self._saved.shown)

    @property
    def rest(self) -> model_figures.ModelFigures:
        """What was counted of models that had no series of their own then."""
        return self._saved.rest

    @property
    def saved(self) -> SavedTotals:
        """What `restore` takes, shared with this object."""
        return self._saved

    def restore(self, saved: SavedTotals) -> None:
        """Go on from the totals of an earlier controller, before the first batch."""
        self._saved = saved

    def take(self, worker_id: str, batch: model_figures.FiguresBatch, now_s: float) -> None:
        """Add a worker's batch, unless it came before."""
        # First: what is added to a model that leaves in the same step would never be shown.
        if now_s - self._reviewed_s >= REVIEW_S:
            self._reviewed_s = now_s
            self._review()
        process, number = self._saved.batches.get(worker_id, (0, 0))
        is_new = batch.process != process or batch.number > number
        if batch.figures and is_new:
            self._saved.batches[worker_id] = (batch.process, batch.number)
            for id_, figures in batch.figures:
                self._add(id_, figures)

    def _add(self, id_: model.ModelId, figures: model_figures.ModelFigures) -> None:
        shown = self._saved.shown
        self._uses[id_] = self._uses.get(id_, 0.0) + figures.requests
        # A worker's last news of a model may come after its withdrawal.
        if id_ not in shown and len(shown) < self._places and self._is_declared(id_):
            self._show(id_)
        shown.get(id_, self._saved.rest).add(figures)

    def _show(self, id_: model.ModelId) -> None:
        kept = self._saved.kept.pop(id_, model_figures.ModelFigures())
        self._saved.shown[id_] = kept

    def _hide(self, id_: model.ModelId) -> None:
        self._saved.kept[id_] = self._saved.shown.pop(id_)

    def _review(self) -> None:
        """Give the places to the models of most use, and forget withdrawn ones."""
        saved, places = self._saved, self._places
        for known in (saved.shown, saved.kept, self._uses):
            for id_ in [id_ for id_ in known if not self._is_declared(id_)]:
                del known[id_]
        by_use = sorted(saved.shown, key=self._use)
        while len(by_use) > places:
            self._hide(by_use.pop(0))
        others = (id_ for id_ in self._uses if id_ not in saved.shown)
        self._give_places(by_use, heapq.nlargest(places, others, key=self._use), places)
        for id_ in list(saved.kept)[: -KEPT_PER_PLACE * places or None]:
            del saved.kept[id_]
        self._uses = {id_: uses / 2 for id_, uses in self._uses.items() if uses >= 1}

    def _give_places(
        self, least: Sequence[model.ModelId], most: Sequence[model.ModelId], places: int
    ) -> None:
        """Show the models of `most` use, in free places and in those of the `least` used."""
        leaving = iter(least)
        for id_ in most:
            if len(self._saved.shown) >= places:
                other = next(leaving, None)
                if other is None or self._use(id_) <= LEAD * self._use(other):
                    return
                self._hide(other)
            self._show(id_)

    @property
    def _places(self) -> int:
        return self._index.desired.metrics.models_max

    def _is_declared(self, id_: model.ModelId) -> bool:
        return self._index.models.declared(id_) is not None

    def _use(self, id_: model.ModelId) -> float:
        return self._uses.get(id_, 0.0)
