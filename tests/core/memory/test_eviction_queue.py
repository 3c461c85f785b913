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


class Scores(dict):
    """Scores that only grow; whoever was never used has the lowest."""

    def __missing__(self, key):
        return 0


def looked(ranked, many=None):
    """The cheapest, read no further than asked."""
    with contextlib.closing(ranked.in_order()) as cheapest:
        return list(itertools.islice(cheapest, many))


@settings(deadline=None)
@given(steps)
def test_the_queue_behaves_like_a_sorted_list(history):
    scores, there = Scores(), set()
    ranked = eviction_queue.EvictionQueue(scores.__getitem__)
    for step, key, number in history:
        if step == "use":
            scores[key] += number
        elif step == "add":
            ranked.add(key)
            there.add(key)
        elif step == "discard":
            ranked.discard(key)
            there.discard(key)
        else:
            found = looked(ranked, number)
            assert [score for score, _ in found] == sorted(scores[key] for key in there)[:number]
            assert all(scores[key] == score for score, key in found)
        assert len(ranked) == len(there)
        assert all((key in ranked) == (key in there) for key in "abcdefghij")
    assert sorted(key for _, key in looked(ranked)) == sorted(there)


def test_a_key_that_was_discarded_and_added_again_comes_once():
    ranked = eviction_queue.EvictionQueue(lambda _key: 1)
    for _ in range(3):
        ranked.add("a")
        ranked.discard("a")
    ranked.add("a")
    assert looked(ranked) == [(1, "a")]


def test_an_aborted_iteration_loses_no_key():
    scores = Scores(a=2, b=1, c=3)
    ranked = eviction_queue.EvictionQueue(scores.__getitem__)
    for key in scores:
        ranked.add(key)
    assert looked(ranked, 2) == [(1, "b"), (2, "a")]
    assert looked(ranked) == [(1, "b"), (2, "a"), (3, "c")]


def test_stale_entries_are_removed_in_time():
    ranked = eviction_queue.EvictionQueue(lambda _key: 1)
    ranked.add("stays")
    for number in range(10_000):
        ranked.add(f"k{number}")
        ranked.discard(f"k{number}")
    assert ranked.entry_count <= 2 + eviction_queue.STALE_MIN + 1
    assert looked(ranked) == [(1, "stays")]


def test_many_stale_scores_are_corrected_at_once():
    scores, asked = Scores(dict.fromkeys(range(1000), 0)), []
    ranked = eviction_queue.EvictionQueue(lambda key: asked.append(key) or scores[key])
    for key in scores:
        ranked.add(key)
    for key in scores:
        scores[key] = 1000 - key
    asked.clear()
    assert looked(ranked, 3) == [(1, 999), (2, 998), (3, 997)]
    assert ranked.entry_count == 1000
    assert len(asked) < 1.6 * len(scores)
