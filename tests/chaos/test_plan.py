"""The plan of faults replays by its seed."""

from __future__ import annotations

import pytest

from tests.chaos import catalog, plan


def test_the_same_seed_gives_the_same_strokes() -> None:
    one, again, other = (plan.strokes(seed, 120, catalog.WEIGHTS) for seed in (7, 7, 8))
    assert one == again
    assert one != other


def test_every_fault_strikes_in_a_short_run_and_none_at_its_end() -> None:
    strokes = plan.strokes(0, 60, catalog.WEIGHTS)
    assert {stroke.fault for stroke in strokes} == set(catalog.FAULTS)
    assert all(0 <= stroke.at_s <= 60 - plan.QUIET_S for stroke in strokes)
    assert list(strokes) == sorted(strokes)


def test_a_longer_run_has_more_strokes_and_can_have_chosen_ones_alone() -> None:
    strokes = plan.strokes(0, 600, catalog.WEIGHTS, ["poison"])
    assert [stroke.fault for stroke in strokes] == ["poison"] * round(
        catalog.WEIGHTS["poison"] * 10
    )
    with pytest.raises(ValueError, match="no fault 'earthquake'"):
        plan.strokes(0, 60, catalog.WEIGHTS, ["earthquake"])
