from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from meshserve.storage import garbage_collection

LIMIT_BYTES = 1000
ENTRIES = st.lists(
    st.builds(
        garbage_collection.CacheEntry,
        digest=st.uuids().map(str),
        path=st.just(Path()),
        size_bytes=st.integers(1, 600),
        used_s=st.floats(0, 100),
    ),
    unique_by=lambda entry: entry.digest,
)


def make_entry(digest: str, used_s: float, size_bytes: int = 400) -> garbage_collection.CacheEntry:
    return garbage_collection.CacheEntry(digest, Path(digest), size_bytes, used_s)


def removed(
    *entries: garbage_collection.CacheEntry, held: tuple[str, ...] = (), young_s: float = 100.0
) -> list[str]:
    return [
        entry.digest
        for entry in garbage_collection.choose_removals(entries, LIMIT_BYTES, held, young_s)
    ]


def test_nothing_is_removed_within_the_limit() -> None:
    assert removed(make_entry("a", 1), make_entry("b", 2)) == []


def test_the_least_recently_used_are_removed_first() -> None:
    assert removed(make_entry("b", 2), make_entry("c", 3), make_entry("a", 1)) == ["a"]


def test_a_tenth_of_the_limit_is_freed_too() -> None:
    entries = [make_entry(str(number), number, 205) for number in range(5)]
    assert removed(*entries) == ["0"]
    assert removed(*entries, make_entry("5", 5, 110)) == ["0", "1"]


def test_held_and_young_entries_stay() -> None:
    entries = [make_entry(str(number), number, 205) for number in range(5)]
    assert removed(*entries, held=("0",)) == ["1"]
    assert removed(*entries, young_s=0.0) == []


def test_a_big_entry_in_use_pushes_nothing_out() -> None:
    small = [make_entry(str(number), number, 200) for number in range(5)]
    assert removed(*small, make_entry("big", 9, 5000), held=("big",)) == []
    assert removed(*small, make_entry("big", 9, 5000), young_s=9.0) == []


def test_a_big_entry_that_is_idle_goes_before_the_small_ones() -> None:
    small = [make_entry(str(number), number, 200) for number in range(3)]
    assert removed(*small, make_entry("big", 9, 5000)) == ["big"]


@given(ENTRIES, st.data(), st.floats(0, 100))
def test_the_rest_is_within_the_limit_unless_it_must_stay(
    entries: list[garbage_collection.CacheEntry], data: st.DataObject, young_s: float
) -> None:
    held = {entry.digest for entry in entries if data.draw(st.booleans())}
    leaving = garbage_collection.choose_removals(entries, LIMIT_BYTES, held, young_s)
    staying = [entry for entry in entries if entry not in leaving]
    assert all(entry.digest not in held and entry.used_s < young_s for entry in leaving)
    kept = [entry for entry in staying if entry.digest in held or entry.used_s >= young_s]
    uncounted = [entry for entry in kept if entry.size_bytes > LIMIT_BYTES / 4]
    if sum(entry.size_bytes for entry in staying if entry not in uncounted) > LIMIT_BYTES:
        assert kept == staying


@given(ENTRIES, st.floats(0, 1))
def test_a_share_is_the_first_ones_that_have_it(
    entries: list[garbage_collection.CacheEntry], share: float
) -> None:
    idle = garbage_collection.list_idle(entries, (), 101.0)
    chosen = garbage_collection.choose_share(idle, share)
    assert chosen == idle[: len(chosen)]
    wanted_bytes = share * sum(entry.size_bytes for entry in entries)
    sizes = [entry.size_bytes for entry in chosen]
    assert sum(sizes) >= wanted_bytes
    assert not sizes or sum(sizes[:-1]) < wanted_bytes
