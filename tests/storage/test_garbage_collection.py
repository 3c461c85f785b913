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


def entry(digest: str, used_s: float, size_bytes: int = 400) -> garbage_collection.CacheEntry:
    return garbage_collection.CacheEntry(digest, Path(digest), size_bytes, used_s)


def gone(
    *entries: garbage_collection.CacheEntry, held: tuple[str, ...] = (), young_s: float = 100.0
) -> list[str]:
    return [
        each.digest
        for each in garbage_collection.choose_removals(entries, LIMIT_BYTES, held, young_s)
    ]


def test_nothing_leaves_while_there_is_room():
    assert gone(entry("a", 1), entry("b", 2)) == []


def test_the_longest_unused_leave_first():
    assert gone(entry("b", 2), entry("c", 3), entry("a", 1)) == ["a"]


def test_some_room_is_made_so_that_it_lasts():
    assert gone(entry("a", 1, 50), entry("b", 2, 500), entry("c", 3, 500)) == ["a", "b"]


def test_what_is_held_or_young_stays():
    entries = entry("a", 1), entry("b", 2), entry("c", 3)
    assert gone(*entries, held=("a",)) == ["b"]
    assert gone(*entries, young_s=1.0) == []


@given(ENTRIES, st.data(), st.floats(0, 100))
def test_what_stays_fits_unless_it_must_stay(entries, data, young_s):
    held = {each.digest for each in entries if data.draw(st.booleans())}
    leaving = garbage_collection.choose_removals(entries, LIMIT_BYTES, held, young_s)
    staying = [each for each in entries if each not in leaving]
    assert all(each.digest not in held and each.used_s < young_s for each in leaving)
    if sum(each.size_bytes for each in staying) > LIMIT_BYTES:
        assert all(each.digest in held or each.used_s >= young_s for each in staying)
