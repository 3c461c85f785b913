from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.values import version_order

WORDS = ["v", "rc", "alpha", "a", "beta", "dev", "post", "final", "latest", ".", "-", "_", "+", "٣"]
versions = st.lists(st.sampled_from(["0", "1", "2", "9", "10", "010", *WORDS]), max_size=7).map(
    "".join
) | st.text(max_size=6)
numbers = st.lists(st.integers(0, 10**6), min_size=1, max_size=4)


@pytest.mark.parametrize(
    "oldest_first",
    [
        ["1", "2", "9", "10", "11"],
        ["9" * 5000, "1" + "0" * 5000],
        ["v0.9.0", "v0.10.0", "v1.0.0"],
        ["v1", "2", "v9", "10", "v11"],
        ["1.9", "1.10", "v2"],
        ["1.0.0-rc1", "1.0.0-rc2", "1.0.0-rc10", "1.0.0", "1.0.1-rc1", "1.0.1"],
        # The example of semver.org.
        [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
        ],
        # Those of Python's packages, and of Maven.
        ["1.0.dev4", "1.0a1", "1.0b2", "1.0rc1", "1.0", "1.0.post1", "1.0.1"],
        ["2.0-SNAPSHOT", "2.0-M1", "2.0-RC1", "2.0", "2.0-patch1"],
        ["1.0.0-rc1", "1.0", "1.0.0"],
        ["2024-9-1", "2024-09-02", "2024-10-1", "2024-10-01T08:00", "2025-01-01"],
        ["20240901", "20241001", "20250101"],
        ["run_9", "run_10", "1"],
        ["latest", "stable", "1"],
        ["1.0", "1.0a", "1.0b", "1.0.1"],
        ["07", "8"],
    ],
)
def test_the_newest_is_the_one_that_people_expect(oldest_first: list[str]) -> None:
    for older, newer in itertools.combinations(oldest_first, 2):
        assert version_order.newest([newer, older]) == newer, (older, newer)
        assert version_order.newest([older, newer]) == newer, (older, newer)


@given(st.lists(versions, unique=True, min_size=2))
def test_the_order_is_total_and_no_two_versions_are_equally_new(several: list[str]) -> None:
    keys = [version_order.sort_key(version) for version in several]
    assert len(set(keys)) == len(several)
    in_order = sorted(several, key=version_order.sort_key)
    backwards = several[::-1]
    assert sorted(backwards, key=version_order.sort_key) == in_order
    assert version_order.newest(several) == in_order[-1]


@given(numbers, numbers, st.sampled_from([".", "-", "_"]), st.sampled_from(["", "v", "V", "ver-"]))
def test_numbers_count_by_value(one: list[int], other: list[int], mark: str, prefix: str) -> None:
    if len(one) == len(other) and one != other:
        newer = prefix + mark.join(map(str, max(one, other)))
        older = mark.join(map(str, min(one, other)))
        assert version_order.newest([older, newer]) == newer


@given(numbers, st.sampled_from(["-rc1", "rc2", "-beta", ".dev1", "-SNAPSHOT", "a1", "-alpha.7"]))
def test_a_release_is_newer_than_its_pre_releases(release: list[int], ending: str) -> None:
    version = ".".join(map(str, release))
    next_version = ".".join(map(str, [*release[:-1], release[-1] + 1]))
    assert version_order.newest([version + ending, version]) == version
    assert version_order.newest([version, next_version + ending]) == next_version + ending
