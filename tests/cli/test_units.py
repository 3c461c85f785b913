import pytest

from meshserve.cli import units


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (90_000, "87.9 KiB"),
        (312 << 20, "312 MiB"),
        (1 << 30, "1 GiB"),
        (1_500_000_000, "1.4 GiB"),
        (5 << 40, "5 TiB"),
    ],
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert units.size(size_bytes) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (12_345, "12,345"),
        (1_250_000, "1.25 M"),
        (98_200_000, "98.2 M"),
        (3 * 10**9, "3 G"),
    ],
)
def test_counts(number: int, text: str) -> None:
    assert units.count(number) == text


@pytest.mark.parametrize(
    ("per_s", "text"), [(0, "0"), (0.42, "0.4"), (9.96, "10.0"), (12.4, "12"), (1234.5, "1,234")]
)
def test_rates(per_s: float, text: str) -> None:
    assert units.rate(per_s) == text


@pytest.mark.parametrize(
    ("time_s", "text"),
    [
        (0, "0 ms"),
        (0.00041, "0.41 ms"),
        (0.0123, "12.3 ms"),
        (3.2, "3.2 s"),
        (245, "4m 05s"),
        (11_520, "3h 12m"),
        (187_200, "2d 4h"),
    ],
)
def test_durations(time_s: float, text: str) -> None:
    assert units.duration(time_s) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 0, "–"), (0, 5, "0.0 %"), (1, 2, "50.0 %"), (99_999, 100_000, "99.9 %"), (7, 7, "100 %")],
)
def test_shares_are_never_rounded_up_to_all(part: int, whole: int, text: str) -> None:
    assert units.share(part, whole) == text


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [(1, "model", "1 model"), (0, "model", "0 models"), (2, "repository", "2 repositories")],
)
def test_numbers_of_things(count: int, noun: str, text: str) -> None:
    assert units.number(count, noun) == text
