"""The choice of the copy that answers a request: a good one, before any that may not load.

A request without a version means the newest one that has loaded. A newer one that was never tried
is tried beside it, or first if the older one has left memory. One that failed is passed over until
its next try is due. A replaced model keeps its copy, under an id of its own, until the new one is
loaded.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from meshserve.core.memory import copies
from meshserve.core.memory.copy_lifecycle import CopyPhase
from meshserve.core.values import model

# No version may contain a slash, so this is no version of a user.
_SUFFIX = "/previous"


def previous_id(id_: model.ModelId) -> model.ModelId:
    """Return the id of the copy that the model had before it was replaced."""
    return model.ModelId(id_.name, id_.version + _SUFFIX)


def is_previous(id_: model.ModelId) -> bool:
    """Return whether the id is of a copy from before a replacement."""
    return id_.version.endswith(_SUFFIX)


def public_id(id_: model.ModelId) -> model.ModelId:
    """Return the id by which users know the model of this id."""
    return model.ModelId(id_.name, id_.version.removesuffix(_SUFFIX))


class Standing(enum.Enum):
    """What is known of a candidate.

    GOOD: it is ready, or its bytes were loaded before and have not failed since. UNTRIED: its
    first load has not ended. DUE: it failed, and may be tried again. FAILED: it may not yet.
    """

    GOOD = "good"
    UNTRIED = "untried"
    DUE = "due"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate that answers, and a better one that is to be loaded beside it, if any."""

    id: model.ModelId
    trial: model.ModelId | None = None


class VersionChoice:
    """Chooses among the copies of one worker, which it only reads."""

    def __init__(
        self,
        bindings: Mapping[model.ModelId, copies.Binding],
        records: Mapping[str, copies.Copy],
    ) -> None:
        self._bindings = bindings
        self._records = records

    def candidates(
        self, versions: Iterable[model.ModelId], superseded: Iterable[model.ModelId] = ()
    ) -> Iterator[model.ModelId]:
        """Yield the versions, each followed by what it was before its replacement, if kept.

        Those that are `superseded` come last: they are not what came before any of the versions,
        even if their version was declared anew.
        """
        removed = frozenset(superseded)
        for id_ in versions:
            yield id_
            previous = previous_id(id_)
            if previous in self._bindings and previous not in removed:
                yield previous
        yield from sorted(removed, reverse=True)

    def choose(self, candidates: Iterable[model.ModelId], now_s: float) -> Choice | None:
        """Return which of the candidates, the best first, answers now; None without candidates."""
        passed: dict[Standing, list[model.ModelId]] = {standing: [] for standing in Standing}
        for id_ in candidates:
            standing = self.standing(id_, now_s)
            if standing is Standing.GOOD:
                untried = passed[Standing.UNTRIED]
                # Both must be loaded, so the request waits for the one that was wished last.
                if untried and not self._is_in_memory(id_):
                    return Choice(untried[0])
                better = untried + passed[Standing.DUE]
                return Choice(id_, better[0] if better else None)
            passed[standing].append(id_)
        # Nothing has loaded yet, so the request waits for the first load that may succeed.
        every = [id_ for ids in passed.values() for id_ in ids]
        return Choice(every[0]) if every else None

    def _is_in_memory(self, id_: model.ModelId) -> bool:
        key = self._bindings[id_].key
        return key is not None and self._records[key].is_in_memory

    def can_answer_now(self, id_: model.ModelId, now_s: float) -> bool:
        """Return whether a good copy of the candidate is in memory."""
        return self.standing(id_, now_s) is Standing.GOOD and self._is_in_memory(id_)

    def standing(self, id_: model.ModelId, now_s: float) -> Standing:
        """Return what is known of the candidate."""
        binding = self._bindings.get(id_)
        if binding is None:
            return Standing.UNTRIED
        copy = self._records[binding.key] if binding.key is not None else None
        failure = binding.failure if copy is None else copy.failure
        if failure is None:
            return Standing.GOOD if copy is not None and copy.is_good else Standing.UNTRIED
        # A load that hangs is not started again, however long ago its time ran out.
        is_stuck = copy is not None and copy.state is CopyPhase.STUCK
        return Standing.DUE if failure.retry.is_due(now_s) and not is_stuck else Standing.FAILED
