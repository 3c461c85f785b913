from __future__ import annotations

import contextlib
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from meshserve.core.memory import eviction_queue

keys = st.sampled_from("abcdefghij")
steps = st.lists(
    st.tuples(st.sampled_from(["use", "add", "discard", "look"]), keys, st.integers(0, 3)),
    max_size=60,
)


class Scores(dict[str, float]):
    """Scores by key, 0 for keys that were never used."""

    def __missing__(self, key: str) -> int:
        return 0


def first(queue: eviction_queue.EvictionQueue, count: int | None = None) -> list[tuple[float, str]]:
    """Return the first entries, read no further than needed."""
    with contextlib.closing(queue.in_order()) as entries:
        return list(itertools.islice(entries, count))


@settings(deadline=None)
@given(steps)
def test_the_queue_behaves_like_a_sorted_list(history: list[tuple[str, str, int]]) -> None:
    scores, present = Scores(), set()
    queue = eviction_queue.EvictionQueue(scores.__getitem__)
    for step, key, number in history:
        if step == "use":
            scores[key] += number
        elif step == "add":
            queue.add(key)
            present.add(key)
        elif step == "discard":
            queue.discard(key)
            present.discard(key)
        else:
            entries = first(queue, number)
            assert [score for score, _ in entries] == sorted(scores[key] for key in present)[
                :number
            ]
            assert all(scores[key] == score for score, key in entries)
        assert len(queue) == len(present)
        assert all((key in queue) == (key in present) for key in "abcdefghij")
    assert sorted(key for _, key in first(queue)) == sorted(present)


def test_a_key_that_was_discarded_and_added_again_comes_once() -> None:
    queue = eviction_queue.EvictionQueue(lambda _key: 1)
    for _ in range(3):
        queue.add("a")
        queue.discard("a")
    queue.add("a")
    assert first(queue) == [(1, "a")]


def test_an_aborted_iteration_loses_no_key() -> None:
    scores = Scores(a=2, b=1, c=3)
    queue = eviction_queue.EvictionQueue(scores.__getitem__)
    for key in scores:
        queue.add(key)
    assert first(queue, 2) == [(1, "b"), (2, "a")]
    assert first(queue) == [(1, "b"), (2, "a"), (3, "c")]


def test_stale_entries_are_removed_in_time() -> None:
    queue = eviction_queue.EvictionQueue(lambda _key: 1)
    queue.add("stays")
    for number in range(10_000):
        queue.add(f"k{number}")
        queue.discard(f"k{number}")
    assert queue.entry_count <= 2 + eviction_queue.STALE_MIN + 1
    assert first(queue) == [(1, "stays")]


def test_many_stale_scores_are_corrected_at_once() -> None:
    names = [f"k{number:03}" for number in range(1000)]
    scores, asked = Scores(dict.fromkeys(names, 0)), []

    def score_of(key: str) -> float:
        asked.append(key)
        return scores[key]

    queue = eviction_queue.EvictionQueue(score_of)
    for key in names:
        queue.add(key)
    for number, key in enumerate(names):
        scores[key] = 1000 - number
    asked.clear()
    assert first(queue, 3) == [(1, "k999"), (2, "k998"), (3, "k997")]
    assert queue.entry_count == 1000
    assert len(asked) < 1.6 * len(scores)
