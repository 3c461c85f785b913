from __future__ import annotations

import json
import logging
import sys

import pytest

from meshserve.logs import log_lines, run_context


def record(message: str, labels: run_context.RunLabels, **fields: object) -> logging.LogRecord:
    made_record = logging.LogRecord("a", logging.INFO, "", 0, message, None, None)
    made_record.__dict__.update({log_lines.LABELS: labels, **fields})
    return made_record


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (run_context.RunLabels(), ""),
        (run_context.RunLabels("ä b", "1"), " [ä b 1]"),
        (run_context.RunLabels("m", "1", "x]\x1b\n: y"), " [m 1 x)??: y]"),
        (run_context.RunLabels("m", "1", "z" * 1000), f" [m 1 {'z' * 256}]"),
    ],
)
def test_marks_are_in_one_line_whatever_a_client_sends(
    labels: run_context.RunLabels, shown: str
) -> None:
    line = log_lines.TextLines().format(record("said", labels))
    assert line.partition(" INFO ")[2] == f"a{shown}: said"


def test_a_printed_text_can_not_look_like_another_line() -> None:
    forged = "x\n2026-01-01 00:00:00,000 ERROR meshserve: forged"
    _, second = log_lines.TextLines().format(record(forged, run_context.NO_RUN)).splitlines()
    assert second.startswith("    2026")
    (only,) = log_lines.JsonLines().format(record(forged, run_context.NO_RUN)).splitlines()
    assert json.loads(only)["message"] == forged


def test_a_long_message_keeps_its_ends() -> None:
    text = log_lines.whole_message(record("a" * 50_000 + "end", run_context.NO_RUN))
    assert len(text) < log_lines.MESSAGE_CHARS_MAX + 10
    assert (text[0], text[-3:]) == ("a", "end")


def test_a_traceback_follows_its_message() -> None:
    try:
        int("why")
    except ValueError:
        text = log_lines.whole_message(record("m", run_context.NO_RUN, exc_info=sys.exc_info()))
    assert text.startswith("m\nTraceback")
    assert text.endswith("with base 10: 'why'")
