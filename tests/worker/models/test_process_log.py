from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from meshserve.logs import run_context
from meshserve.worker.models import process_log

LABELS = run_context.RunLabels("m", "1")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def test_lines_are_logged_with_the_model_s_name(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    log = process_log.ProcessLog(pipe[0], LABELS)
    with caplog.at_level(logging.INFO):
        os.write(pipe[1], b"one\ntw")
        assert log.read()
        os.write(pipe[1], b"o\n\n\xff" + b"x" * process_log.LINE_BYTES_MAX + b"\nrest")
        assert log.read()
        os.close(pipe[1])
        assert not log.read()
    first, second, long, tail, rest = caplog.messages
    assert (first, second, rest) == ("one", "two", "rest")
    assert long.startswith("\N{REPLACEMENT CHARACTER}xx")
    assert tail == "x"


def test_a_line_that_never_ends_is_cut(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    log = process_log.ProcessLog(pipe[0], LABELS)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            os.write(pipe[1], b"y" * process_log.LINE_BYTES_MAX)
            log.read()
    os.close(pipe[1])
    assert len(caplog.messages) >= 1
    assert all(len(line) < process_log.LINE_BYTES_MAX + 10 for line in caplog.messages)
