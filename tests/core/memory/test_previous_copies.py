from __future__ import annotations

from meshserve.core.memory import copies, previous_copies, version_choice
from meshserve.core.values import model

FIRST, SECOND = model.ModelId("m", "1"), model.ModelId("m", "2")
BEFORE = version_choice.previous_id(FIRST)


class Bindings:
    """The bindings of one worker with their previous copies."""

    def __init__(self) -> None:
        self.by_id: dict[model.ModelId, copies.Binding] = {}
        self.changed: set[model.ModelId] = set()
        self.previous = previous_copies.PreviousCopies(self.by_id, self.changed, self.unbind)

    def unbind(self, id_: model.ModelId) -> None:
        del self.by_id[id_]


def test_a_kept_copy_is_one_of_its_own_until_it_is_dropped() -> None:
    bindings, copy = Bindings(), copies.Copy("old", model.NO_BYTES)
    bindings.previous.keep(FIRST, copy)
    assert (bindings.by_id[BEFORE].key, copy.names, bindings.changed) == ("old", {BEFORE}, {BEFORE})
    bindings.previous.keep(FIRST, copies.Copy("newer", model.NO_BYTES))
    assert bindings.by_id[BEFORE].key == "old"
    bindings.previous.drop(FIRST)
    assert bindings.by_id == {}


def test_only_what_was_kept_is_superseded() -> None:
    bindings = Bindings()
    bindings.previous.supersede(FIRST)
    assert bindings.previous.superseded("m") == frozenset()
    bindings.previous.keep(FIRST, copies.Copy("old", model.NO_BYTES))
    bindings.previous.supersede(FIRST)
    assert bindings.previous.superseded("m") == {BEFORE}
    copy = bindings.by_id.pop(BEFORE)
    assert bindings.previous.superseded("m") == frozenset()
    bindings.by_id[BEFORE] = copy
    bindings.previous.drop(SECOND)
    assert (bindings.previous.superseded("m"), bindings.by_id) == (frozenset(), {})
