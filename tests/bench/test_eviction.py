from __future__ import annotations

from typing import Any

from bench import eviction, shelves, traces

MODELS = traces.models(200)


def sharded(ratio: Any) -> Any:
    return [
        eviction.Sharded(
            "lru", {1: 0.8, 8: 0.8 * ratio, 128: 0.8 * ratio}, {1: 1.0, 8: 1.0, 128: 1.0}
        )
    ]


def played(lost_s: Any) -> Any:
    outcomes = {"lru": shelves.Outcome(10, 5, 10.0), "gdsf": shelves.Outcome(10, 4, lost_s)}
    return [eviction.Played("Zipf", 0.2, outcomes, 2.0, 4.0)]


def reached(*, is_quick: bool = False, ratio: float = 1.0, lost_s: float = 8.0) -> Any:
    return [
        claim.is_reached
        for claim in eviction.claims(played(lost_s), sharded(ratio), is_quick=is_quick)
    ]


def test_every_target_can_be_missed() -> None:
    assert reached() == [True, True, True]
    assert reached(ratio=0.985) == [False, True, True]
    assert reached(ratio=0.97, lost_s=8.6) == [False, False, False]
    assert reached(ratio=0.96, lost_s=9.9, is_quick=True) == [True, True, True]


def test_both_policies_are_played_and_neither_beats_the_bound() -> None:
    played = eviction.play(traces.zipf(len(MODELS), 2_000), MODELS, 0.2)
    assert set(played.outcomes) == {"lru", "gdsf"}
    assert all(
        outcome.misses >= played.misses_min and outcome.lost_s >= played.lost_s_min
        for outcome in played.outcomes.values()
    )


def test_one_worker_of_all_bytes_is_what_the_ring_is_held_against() -> None:
    sharded = eviction.shard(traces.zipf(len(MODELS), 2_000), MODELS, (2,), "lru")
    assert set(sharded.hit_ratios) == {1, 2}
    assert 0.5 < sharded.hit_ratios[2] / sharded.hit_ratios[1] < 1.2


def test_the_chart_has_the_bound_beside_each_trace() -> None:
    (chart,) = eviction.charts(played(8.0))
    assert [bar.value for bar in chart.bars] == [10.0, 8.0, 4.0]
