"""The figures of one worker's models since its last report, and the requests that wait."""

from __future__ import annotations

import collections
import contextlib
import itertools
import secrets
import time
from collections.abc import Iterable, Iterator

from meshserve.core.values import model, model_figures

BATCH_MODELS_MAX = 500
"""Models in one report: more would hold up the event loops of both sides."""


class ModelTraffic:
    """Counts in plain dictionaries, of models with news alone, until a report takes them."""

    def __init__(self) -> None:
        self.fresh: collections.defaultdict[model.ModelId, model_figures.ModelFigures] = (
            collections.defaultdict(model_figures.ModelFigures)
        )
        self.cold: collections.Counter[model.ModelId] = collections.Counter()
        """Requests that wait for their model to load now."""
        # Not the pid: a container's processes have the same ones after each start.
        self._sent = model_figures.FiguresBatch(secrets.randbits(63))

    @contextlib.contextmanager
    def waiting(self, id_: model.ModelId) -> Iterator[None]:
        """Count a request that waits for its model within the context, however it ends."""
        began_s = time.perf_counter()
        self.cold[id_] += 1
        try:
            yield
        finally:
            self.cold[id_] -= 1
            # Not kept at zero: there may be tens of thousands of models.
            if not self.cold[id_]:
                del self.cold[id_]
            self.fresh[id_].record_cold_call(time.perf_counter() - began_s)

    def record_copies(
        self, changes: Iterable[tuple[model.ModelId, model_figures.ModelFigures]]
    ) -> None:
        """Add the loads and evictions of copies."""
        for id_, figures in changes:
            self.fresh[id_].add(figures)

    def next_batch(self, *, has_arrived: bool) -> model_figures.FiguresBatch:
        """Return what is new, or the last batch once more unless that `has_arrived`."""
        if self._sent.figures and not has_arrived:
            return self._sent
        taken = tuple(itertools.islice(self.fresh.items(), BATCH_MODELS_MAX))
        for id_, _ in taken:
            del self.fresh[id_]
        number = self._sent.number + 1 if taken else self._sent.number
        self._sent = self._sent._replace(number=number, figures=taken)
        return self._sent
