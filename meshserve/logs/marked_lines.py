"""The lines of a model's process on their way to the log of its worker, through a pipe.

What Python prints and logs is marked, with its level and request; native code writes bare lines.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from typing import NamedTuple

from meshserve.logs import log_lines, printed_lines, run_context

MARK = b"\x1e"
"""ASCII's record separator, with which no printed line begins."""

MARKED_BYTES_MAX = 12 * log_lines.MESSAGE_CHARS_MAX + 4096
"""Longer than any marked line: a character takes 12 bytes of JSON at most."""


class ProcessLine(NamedTuple):
    """One line of a process. `source` is the stream that it was printed to, or a logger."""

    level: int
    source: str
    request_id: str
    message: str


class PipeLog(logging.Handler):
    """Writes records to the pipe."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, with the id of the request that runs."""
        message = log_lines.whole_message(record)
        line = ProcessLine(
            record.levelno, record.name, log_lines.labels_of(record).request_id, message
        )
        self.write(line)

    def write_printed(self, stream: str, text: str, labels: run_context.RunLabels) -> None:
        """Write a line that was printed to a stream."""
        self.write(ProcessLine(logging.INFO, stream, labels.request_id, text))

    def write(self, line: ProcessLine) -> None:
        """Write one line; it is lost if the worker is gone."""
        # A model's prints must not end its requests.
        with contextlib.suppress(Exception):
            os.write(self._descriptor, MARK + json.dumps(line).encode() + b"\n")


def take_output(descriptor: int) -> None:
    """Have all that this process prints and logs marked and written to the pipe."""
    handler = PipeLog(descriptor)
    sys.stdout = printed_lines.PrintedLines("stdout", 1, handler.write_printed)
    sys.stderr = printed_lines.PrintedLines("stderr", 2, handler.write_printed)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def parse(line: bytes) -> ProcessLine:
    """Return what a line without its end says; one without a good mark is native code's."""
    if line.startswith(MARK):
        # The process may run hostile code, which may write anything.
        with contextlib.suppress(ValueError, TypeError):
            level, source, request_id, message = json.loads(line[1:])
            return ProcessLine(int(level), str(source), str(request_id), str(message))
    return ProcessLine(logging.INFO, "output", "", line.decode(errors="replace"))
