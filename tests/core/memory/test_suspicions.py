from __future__ import annotations

import inspect
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.memory import suspicions
from meshserve.core.memory.suspicions import CopyStanding, SuspicionMove
from tests.core import diagram

CLEAR, SUSPECT, QUARANTINED = CopyStanding.CLEAR, CopyStanding.SUSPECT, CopyStanding.QUARANTINED


def test_the_diagram_at_the_head_of_the_file_is_the_table() -> None:
    assert diagram.of(suspicions.LIFECYCLE, CopyStanding) in inspect.cleandoc(suspicions.__doc__)
    assert {move for _, move in suspicions.LIFECYCLE.moves} == set(SuspicionMove)


def test_a_suspect_is_over_after_the_longest_of_its_times_alone() -> None:
    held = suspicions.Suspicions()
    assert held.suspect("k", 100.0, 20.0)
    assert not held.suspect("k", 101.0, 40.0)
    assert not held.suspect("k", 102.0, 5.0)
    assert (held.is_over("k", 140.9), held.is_over("k", 141.0)) == (False, True)
    assert held.acquit("k")
    assert (held.standing("k"), held.is_over("k", 141.0)) == (CLEAR, False)
    assert not held.acquit("k")


def test_a_quarantine_ends_by_a_release_alone_and_then_the_copy_is_a_suspect() -> None:
    held = suspicions.Suspicions()
    assert held.convict("k", "it was SIGSEGV")
    assert not held.convict("k", "again")
    assert not held.suspect("k", 0.0, 1.0)
    assert not held.acquit("k")
    assert (held.standing("k"), held.reason("k")) == (QUARANTINED, "it was SIGSEGV")
    assert held.release("k", 50.0)
    assert (held.standing("k"), held.reason("k"), held.kills("k")) == (SUSPECT, "", 0)
    assert (held.is_over("k", 69.9), held.is_over("k", 70.0)) == (False, True)
    assert not held.release("k", 50.0)


def test_kills_from_outside_are_counted_for_suspects_alone() -> None:
    held = suspicions.Suspicions()
    held.count_kill("k")
    assert held.kills("k") == 0
    held.suspect("k", 0.0, 1.0)
    held.count_kill("k")
    assert held.kills("k") == 1


CALLS = st.tuples(
    st.sampled_from(["suspect", "convict", "acquit", "release"]), st.sampled_from("ab")
)


@given(st.lists(CALLS, max_size=30))
def test_any_order_of_calls_is_legal_and_tells_whether_the_standing_changed(
    calls: list[tuple[str, str]],
) -> None:
    held = suspicions.Suspicions()
    more: dict[str, tuple[Any, ...]] = {
        "suspect": (0.0, 1.0),
        "convict": ("why",),
        "acquit": (),
        "release": (0.0,),
    }
    for name, key in calls:
        before = held.standing(key)
        changed = getattr(held, name)(key, *more[name])
        assert changed == (held.standing(key) is not before)
        assert (held.standing(key) is QUARANTINED) == bool(held.reason(key))
        assert (key in held.keys(SUSPECT)) == (held.standing(key) is SUSPECT)
    assert held.keys(CLEAR) == ()
