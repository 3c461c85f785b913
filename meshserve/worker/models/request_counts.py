"""What one worker counts of the requests of each of its models."""

from __future__ import annotations

import collections
from typing import NamedTuple

from meshserve.core.values import model, model_stats


class ModelLoad(NamedTuple):
    """A model's requests since the last call, and its `ModelStats.saturated_s`."""

    requests: int
    saturated_s: float


class RequestCounts:
    """Counters that only grow, and the requests since the load was last taken.

    `stats` has every model that had a request, until it is forgotten.
    """

    def __init__(self) -> None:
        self.stats: collections.defaultdict[model.ModelId, model_stats.ModelStats] = (
            collections.defaultdict(model_stats.ModelStats)
        )
        self._requests: collections.Counter[model.ModelId] = collections.Counter()

    def add(self, id_: model.ModelId, requests: int = 1) -> None:
        """Count requests for the next load."""
        self._requests[id_] += requests

    def forget(self, id_: model.ModelId) -> None:
        """Drop a withdrawn model; /metrics would keep a series for each that ever existed."""
        self.stats.pop(id_, None)
        self._requests.pop(id_, None)

    def take_load(self) -> dict[model.ModelId, ModelLoad]:
        """Return the load of each model that had requests since the last call."""
        requests, self._requests = self._requests, collections.Counter()
        return {
            id_: ModelLoad(count, self._take_saturated_s(id_)) for id_, count in requests.items()
        }

    def _take_saturated_s(self, id_: model.ModelId) -> float:
        stats = self.stats[id_]
        saturated_s, stats.saturated_s = stats.saturated_s, 0.0
        return saturated_s
