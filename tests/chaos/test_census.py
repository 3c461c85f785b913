"""What the census takes for a leak."""

from __future__ import annotations

import pytest

from tests.chaos import census, world

BEFORE = {"ray::WorkerActor": census.Holding(3, 200 << 20, 100, 40)}


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (census.Holding(3, 210 << 20, 110, 45), []),
        # A worker may fill its budget, however little it had at the beginning.
        (census.Holding(3, world.WORKER_BYTES, 100, 40), []),
        (census.Holding(3, world.WORKER_BYTES * 2, 100, 40), ["MiB"]),
        (census.Holding(4, 200 << 20, 100, 40), ["4 processes"]),
        (census.Holding(3, 200 << 20, 500, 40), ["500 descriptors"]),
        (census.Holding(3, 200 << 20, 100, 90), ["90 threads"]),
    ],
)
def test_growth_beyond_the_bounds_is_a_leak(after: census.Holding, words: list[str]) -> None:
    leaks = census.grown(BEFORE, {"ray::WorkerActor": after})
    assert [word in leak for word, leak in zip(words, leaks, strict=True)] == [True] * len(words)


def test_no_model_has_a_process_once_all_are_unloaded() -> None:
    left = {census.MODELS_PROCESS: census.Holding(1, 20 << 20, 5, 2)}
    assert census.grown(left, left) == ["1 processes model's process, not 0"]
