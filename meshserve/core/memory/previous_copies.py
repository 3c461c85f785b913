"""Copies of what models were before: they answer until what came in their place is loaded.

A replaced model has one under its own name and version (`version_choice.previous_id`). A version
that a newer one has superseded, and that is not declared any longer, answers for its name.
"""

from __future__ import annotations

from collections.abc import Callable

from meshserve.core.memory import copies, version_choice
from meshserve.core.values import model


class PreviousCopies:
    """The previous copies among the bindings of one worker.

    `changed` collects models whose report has changed; `unbind` takes a binding away.
    """

    def __init__(
        self,
        bindings: dict[model.ModelId, copies.Binding],
        changed: set[model.ModelId],
        unbind: Callable[[model.ModelId], None],
    ) -> None:
        self._bindings = bindings
        self._changed = changed
        self._unbind = unbind
        self._superseded: dict[str, set[model.ModelId]] = {}

    def superseded(self, name: str) -> frozenset[model.ModelId]:
        """Return the bindings of versions of the model that are not declared any longer."""
        # A binding may have ended by itself, such as by a change of its file.
        return frozenset(self._superseded.get(name, ())) & self._bindings.keys()

    def keep(self, id_: model.ModelId, copy: copies.Copy) -> None:
        """Let the copy of a replaced model answer until the new one is loaded.

        It has no pin: if both do not fit, the new one takes its memory.
        """
        previous = version_choice.previous_id(id_)
        # One that is kept already has been loaded here; this one may have been elsewhere.
        if previous not in self._bindings:
            self._bindings[previous] = copies.Binding(previous, copy.key)
            copy.names.add(previous)
            self._changed.add(previous)

    def supersede(self, id_: model.ModelId) -> None:
        """Let what was kept of the version answer for its name, until another version is loaded."""
        previous = version_choice.previous_id(id_)
        if previous in self._bindings:
            self._superseded.setdefault(id_.name, set()).add(previous)

    def of_version(self, id_: model.ModelId) -> set[model.ModelId]:
        """Return the bindings kept of the version, and of superseded ones of its name."""
        kept = {version_choice.previous_id(id_), *self._superseded.get(id_.name, ())}
        return kept & self._bindings.keys()

    def drop(self, id_: model.ModelId) -> None:
        """Forget what was kept of the version, and all versions of its name that are superseded."""
        kept = self.of_version(id_)
        self._superseded.pop(id_.name, None)
        for previous in kept:
            self._unbind(previous)
