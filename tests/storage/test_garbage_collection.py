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
    assert removed(make_entry("a", 1, 50), make_entry("b", 2, 500), make_entry("c", 3, 500)) == [
        "a",
        "b",
    ]


def test_held_and_young_entries_stay() -> None:
    entries = make_entry("a", 1), make_entry("b", 2), make_entry("c", 3)
    assert removed(*entries, held=("a",)) == ["b"]
    assert removed(*entries, young_s=1.0) == []


@given(ENTRIES, st.data(), st.floats(0, 100))
def test_the_rest_is_within_the_limit_unless_it_must_stay(
    entries: list[garbage_collection.CacheEntry], data: st.DataObject, young_s: float
) -> None:
    held = {entry.digest for entry in entries if data.draw(st.booleans())}
    leaving = garbage_collection.choose_removals(entries, LIMIT_BYTES, held, young_s)
    staying = [entry for entry in entries if entry not in leaving]
    assert all(entry.digest not in held and entry.used_s < young_s for entry in leaving)
    if sum(entry.size_bytes for entry in staying) > LIMIT_BYTES:
        assert all(entry.digest in held or entry.used_s >= young_s for entry in staying)
