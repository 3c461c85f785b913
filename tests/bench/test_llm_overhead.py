from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from bench import llm_overhead, results, streaming


def figures(speed: Any, p50_ms: Any) -> Any:
    return llm_overhead.Figures(speed, p50_ms, 2 * p50_ms, 100.0)


def one_round(mesh: Any, bare: Any) -> Any:
    """The same at every number of streams."""
    return {
        streams: {llm_overhead.MESH: figures(*mesh), llm_overhead.BARE: figures(*bare)}
        for streams in llm_overhead.STREAMS
    }


ROUNDS = [
    one_round((99, 11.0), (100, 10.0)),
    one_round((50, 21.5), (50, 20.0)),
    one_round((10, 30.0), (20, 29.9)),
]


def test_medians_are_of_each_figure() -> None:
    assert llm_overhead.medians(ROUNDS) == one_round((50, 21.5), (50, 20.0))


def test_rounds_are_compared_each_by_itself() -> None:
    for comparison in llm_overhead.compared(ROUNDS):
        assert comparison.speed_ratio == pytest.approx(0.99)
        assert comparison.ttft_added_ms == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("ratio", "added_ms", "reached"), [(0.99, 1.0, [True, True]), (0.989, 1.01, [False, False])]
)
def test_targets_are_held_against_the_bare_server(ratio: Any, added_ms: Any, reached: Any) -> None:
    claims = llm_overhead.Compared(1, ratio, added_ms, (0.9, 1.1), (-1.0, 2.0)).claims(ROUNDS[0][1])
    assert [claim.is_reached for claim in claims] == reached
    assert (claims[0].ours, claims[0].theirs, claims[0].ratio, claims[1].ours) == (
        99,
        100,
        ratio,
        added_ms,
    )


def test_the_table_has_both_at_every_number_of_streams() -> None:
    drawn = llm_overhead.table("medians", ROUNDS[0])
    assert [row[0] for row in drawn.rows] == [
        "1, meshserve",
        "1, vllm serve",
        "16, meshserve",
        "16, vllm serve",
    ]


def test_no_two_requests_of_a_load_are_the_same() -> None:
    asked = [json.loads(body) for body in llm_overhead.bodies(64, 8)]
    assert len({body["prompt"] for body in asked}) == 64
    assert {(body["stream"], body["temperature"]) for body in asked} == {(True, 0)}
    assert {body["max_tokens"] for body in asked} == set(range(4, 13))


def test_a_median_lies_between_what_chance_could_make_of_it() -> None:
    low, high = llm_overhead.between([1.0, 2.0, 3.0, 4.0, 100.0])
    assert 1.0 <= low < 3.0 < high <= 100.0
    assert llm_overhead.between([2.0]) == (2.0, 2.0)


def test_the_bare_server_has_the_mesh_s_arguments_and_surroundings(tmp_path: Path) -> None:
    words = llm_overhead.bare_words(Path("/m"), "127.0.0.1:1")
    assert words[:2] == ["serve", "/m"]
    assert {"--enforce-eager", "--max-model-len=512", "--port=1", "--served-model-name=tiny"} < set(
        words
    )
    assert f"--kv-cache-memory-bytes={llm_overhead.KV_BYTES}" in words
    assert llm_overhead.bare_environment(tmp_path, tmp_path)["HF_HUB_OFFLINE"] == "1"


def test_what_is_found_can_be_saved_and_read_again(tmp_path: Path) -> None:
    args = argparse.Namespace(requests=4, tokens=8)
    config = llm_overhead.summarise(
        args, ROUNDS, {llm_overhead.MESH: {"envoy": 0.01, "raylet": 0.02}, llm_overhead.BARE: {}}
    )
    _, read = results.load(results.save("llm_overhead", config, {"cores": 2}, tmp_path))
    assert (read.rounds, len(read.claims), read.tables[2].rows[0]) == (
        3,
        4,
        (llm_overhead.MESH, "0.030"),
    )
    rounds: Any = read.figures["rounds"]
    assert len(rounds) == 3


def test_answers_that_differ_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_overhead, "measure", lambda system, *_: (figures(1, 1.0), [system]))
    systems: dict[str, Any] = {name: name for name in llm_overhead.STARTS}
    with pytest.raises(streaming.LoadFailed, match="different answers"):
        llm_overhead.one_round(systems, (llm_overhead.MESH, llm_overhead.BARE), 1, 1)
