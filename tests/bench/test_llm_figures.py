from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from bench import llm_figures, results


def figures(speed: Any, p50_ms: Any) -> Any:
    return llm_figures.Figures(speed, p50_ms, 2 * p50_ms, 100.0)


def one_round(mesh: Any, bare: Any) -> Any:
    """The same at every number of streams."""
    return {
        streams: {llm_figures.MESH: figures(*mesh), llm_figures.BARE: figures(*bare)}
        for streams in llm_figures.STREAMS
    }


ROUNDS = [
    one_round((99, 11.0), (100, 10.0)),
    one_round((50, 21.5), (50, 20.0)),
    one_round((10, 30.0), (20, 29.9)),
]


def test_medians_are_of_each_figure() -> None:
    assert llm_figures.medians(ROUNDS) == one_round((50, 21.5), (50, 20.0))


def test_rounds_are_compared_each_by_itself() -> None:
    for comparison in llm_figures.compared(ROUNDS):
        assert comparison.speed_ratio == pytest.approx(0.99)
        assert comparison.ttft_added_ms == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("ratio", "added_ms", "reached"), [(0.99, 1.0, [True, True]), (0.989, 1.01, [False, False])]
)
def test_targets_are_held_against_the_bare_server(ratio: Any, added_ms: Any, reached: Any) -> None:
    claims = llm_figures.Compared(1, ratio, added_ms, (0.9, 1.1), (-1.0, 2.0)).claims(ROUNDS[0][1])
    assert [claim.is_reached for claim in claims] == reached
    assert (claims[0].ours, claims[0].theirs, claims[0].ratio, claims[1].ours) == (
        99,
        100,
        ratio,
        added_ms,
    )


def test_the_table_has_both_at_every_number_of_streams() -> None:
    drawn = llm_figures.table("medians", ROUNDS[0])
    assert [row[0] for row in drawn.rows] == [
        "1, meshserve",
        "1, vllm serve",
        "16, meshserve",
        "16, vllm serve",
    ]


def test_a_median_lies_between_what_chance_could_make_of_it() -> None:
    low, high = llm_figures.between([1.0, 2.0, 3.0, 4.0, 100.0])
    assert 1.0 <= low < 3.0 < high <= 100.0
    assert llm_figures.between([2.0]) == (2.0, 2.0)


def test_what_is_found_can_be_saved_and_read_again(tmp_path: Path) -> None:
    args = argparse.Namespace(requests=4, tokens=8)
    config = llm_figures.summarise(
        args, ROUNDS, {llm_figures.MESH: {"envoy": 0.01, "raylet": 0.02}, llm_figures.BARE: {}}
    )
    _, read = results.load(results.save("llm_overhead", config, {"cores": 2}, tmp_path))
    assert (read.rounds, len(read.claims), read.tables[2].rows[0]) == (
        3,
        4,
        (llm_figures.MESH, "0.030"),
    )
    rounds: Any = read.figures["rounds"]
    assert len(rounds) == 3
