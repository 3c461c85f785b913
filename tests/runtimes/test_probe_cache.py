from __future__ import annotations

from meshserve.runtimes import probe_cache


def test_what_was_put_is_known():
    known = probe_cache.ProbeCache()
    assert known.get("a") is None
    known.put("a", (1, 2))
    assert known.get("a") == (1, 2)


def test_equal_values_are_kept_once():
    known = probe_cache.ProbeCache()
    first = known.put("a", "one " * 9)
    assert known.put("b", "one " * len("123456789")) is first
    assert known.get("b") is first
    assert known.put("c", "other") is not first


def test_there_is_an_end_to_it():
    known = probe_cache.ProbeCache(count_max=2)
    for key in "abc":
        known.put(key, key * 2)
    assert [known.get(key) for key in "abc"] == [None, None, "cc"]
