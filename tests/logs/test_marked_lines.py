from __future__ import annotations

import json
import logging
import os

import pytest

from meshserve.logs import log_lines, marked_lines, run_context

Line = marked_lines.ProcessLine


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (b"native \xff", Line(20, "output", "", "native \N{REPLACEMENT CHARACTER}")),
        (b'\x1e[30, "users", "abc", "two\\nlines"]', Line(30, "users", "abc", "two\nlines")),
        (b"\x1e[1, 2]", Line(20, "output", "", "\x1e[1, 2]")),
        (b"\x1enot json", Line(20, "output", "", "\x1enot json")),
        (b'\x1e["x", "a", "b", "c"]', Line(20, "output", "", '\x1e["x", "a", "b", "c"]')),
    ],
)
def test_a_line_of_a_process_is_read(line: bytes, parsed: marked_lines.ProcessLine) -> None:
    assert marked_lines.parse(line) == parsed


def test_records_and_prints_reach_the_other_end() -> None:
    reading, writing = os.pipe()
    handler = marked_lines.PipeLog(writing)
    labels = run_context.RunLabels(request_id="abc")
    handler.write_printed("stdout", "printed", labels)
    record = logging.LogRecord("users", logging.ERROR, "", 0, "said %s", ("so",), None)
    record.__dict__[log_lines.LABELS] = labels
    handler.emit(record)
    os.close(reading)
    handler.emit(record)  # nobody reads any more
    os.close(writing)


def test_the_longest_message_fits_into_a_marked_line() -> None:
    message = "\U0001f600" * log_lines.MESSAGE_CHARS_MAX
    line = json.dumps(marked_lines.ProcessLine(20, "s", "i", message)).encode()
    assert len(line) <= marked_lines.MARKED_BYTES_MAX
