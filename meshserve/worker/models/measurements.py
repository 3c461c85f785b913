"""The footprints that a worker's loads have measured, by the models that they were loaded for."""

from __future__ import annotations

from collections.abc import Iterable

from meshserve.core.memory import copies, version_choice
from meshserve.core.values import model
from meshserve.worker.models import loader


class Measurements:
    """What is known of each model's artifact, and what the controller was not told of it yet."""

    def __init__(self) -> None:
        self._known: dict[model.ModelId, model.Measured] = {}
        self._new: dict[model.ModelId, model.Measured] = {}

    def find(self, id_: model.ModelId) -> model.Measured | None:
        """Return the model's last measurement."""
        return self._known.get(id_)

    def remember(self, ids: Iterable[model.ModelId], measured: model.Measured) -> None:
        """Keep a measurement for each of the models, unless it says what is known already."""
        changed = {
            id_: measured
            for id_ in ids
            # The id of before a replacement exists in this worker alone.
            if not (version_choice.is_previous(id_) or measured.is_known(self._known.get(id_)))
        }
        self._known.update(changed)
        self._new.update(changed)

    def note_load(self, copy: copies.Copy, digest: str, loaded: loader.LoadedCopy) -> None:
        """Keep what a load has measured, or at least that the copy's models have loaded.

        A load beside others measures nothing.
        """
        if loaded.is_measured:
            measured = model.Measured(digest, loaded.footprint, loaded.load_s)
            self.remember(copy.names, measured)
        else:
            self._note_loaded(copy.names, model.Measured(digest, copy.need, 0.0))

    def note_shared(self, id_: model.ModelId, digest: str, copy: copies.Copy | None) -> None:
        """Keep that a model has loaded if a copy of its bytes has, for another model."""
        if copy is not None and copy.is_good:
            self._note_loaded([id_], model.Measured(digest, copy.need, copy.load_s))

    def _note_loaded(self, ids: Iterable[model.ModelId], loaded: model.Measured) -> None:
        known = {id_: self._known.get(id_) for id_ in ids}
        self.remember(
            [id_ for id_, one in known.items() if one is None or one.digest != loaded.digest],
            loaded,
        )

    def forget(self, id_: model.ModelId) -> None:
        """Drop the measurement of a model that was withdrawn or declared anew."""
        self._known.pop(id_, None)

    def take(self) -> dict[model.ModelId, model.Measured]:
        """Return what was measured since the last call."""
        new, self._new = self._new, {}
        return new
