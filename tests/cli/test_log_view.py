from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.cli import log_view

TEXT = "2026-11-28 16:38:56,624 WARNING meshserve.worker [iris 3 abc]: a request failed"
JSON = '{"time": "2026-11-28T16:38:56.624Z", "message": "said", "model": "iris"}'


@pytest.mark.parametrize(
    ("line", "is_dated"),
    [
        (TEXT, True),
        (JSON, True),
        ("[2026-11-28 16:38:56.624][12][warning][main] Envoy's", True),
        ("2026-11-28T16:38:56.624Z request_id=abc", True),
        ("    Traceback (most recent call last):", False),
        ("native", False),
        ('{"time": 3}', False),
        ("{half", False),
        ("[1, 2]", False),
        ("", False),
    ],
)
def test_a_line_has_a_time_or_continues_another(line: str, is_dated: bool) -> None:
    at_s = log_view.parse_time(line)
    assert (at_s is not None) == is_dated
    if line == JSON:
        assert at_s == pytest.approx(1795883936.624)


def test_lines_that_belong_together_are_one_entry() -> None:
    lines = [TEXT, "    Traceback", "    ValueError", "native", TEXT]
    read = list(log_view.entries("w", lines))
    assert [entry.text.count("\n") for entry in read] == [2, 0, 0]
    assert read[1].at_s == read[0].at_s == log_view.parse_time(TEXT)
    assert [entry.at_s for entry in log_view.entries("w", ["native"], 5.0)] == [5.0]


@pytest.mark.parametrize(
    ("stem", "who", "is_its"),
    [
        ("default-0", "default-0", True),
        ("default-0", "default", True),
        ("default-0", "def", False),
        ("default-x", "default", False),
        ("org-tiny-3", "org/tiny", True),
        ("gateway", "gateway", True),
        ("envoy", "gateway", True),
        ("access", "gateway", True),
        ("up", "gateway", False),
        (f"{'y' * 58}-0", "x" * 9 + "y" * 58, True),
    ],
)
def test_files_belong_to_processes_pools_and_llms(stem: str, who: str, is_its: bool) -> None:
    assert log_view.is_log_of(stem, who) == is_its


@pytest.mark.parametrize(
    ("text", "who", "tells"),
    [
        (TEXT, "iris", True),
        (TEXT, "iri", False),
        (TEXT, "failed", False),
        (TEXT.replace("[iris 3 abc]", "[a b 1]"), "a b", True),
        (JSON, "iris", True),
        (JSON, "said", False),
        (TEXT.replace(" [iris 3 abc]", ""), "iris", False),
        (TEXT.replace(" [iris 3 abc]", "").replace("a request", "iris:1"), "iris", True),
        ("evicted iris.", "iris", True),
        ("evicted iris.v2", "iris", False),
        ("evicted iris-2 my-iris", "iris", False),
        ("{half iris", "iris", True),
    ],
)
def test_an_entry_tells_of_its_model_or_of_those_it_names(text: str, who: str, tells: bool) -> None:
    assert log_view.tells_of(log_view.LogEntry(0, "w", text), who) == tells


def test_since_is_a_duration_or_a_time() -> None:
    assert log_view.parse_since("10m", 1000.0) == 400.0
    assert log_view.parse_since("1970-01-02T00:00+00:00", 0.0) == 86400.0
    with pytest.raises(errors.ConfigInvalid, match="--since soon: expected a duration such as"):
        log_view.parse_since("soon", 0.0)
