"""What a model's process prints and logs, as lines of its worker's log."""

from __future__ import annotations

import logging
import os

from meshserve.logs import log_files, log_lines, marked_lines, run_context

READ_BYTES = 1 << 16
LINE_BYTES_MAX = 1 << 12
"""Bound of one line in the log; the rest of a longer one is the next line."""


class ProcessLog:
    """The reading end of a process's output, and the line that has not ended yet."""

    def __init__(self, descriptor: int, labels: run_context.RunLabels) -> None:
        self.descriptor = descriptor
        self._labels = labels
        self._rest = b""

    def read(self) -> bool:
        """Log the lines that have come; return whether more may follow. Blocks if none came."""
        data = os.read(self.descriptor, READ_BYTES)
        *lines, self._rest = (self._rest + data).split(b"\n")
        is_marked = self._rest.startswith(marked_lines.MARK)
        bytes_max = marked_lines.MARKED_BYTES_MAX if is_marked else LINE_BYTES_MAX
        if not data or len(self._rest) > bytes_max:
            lines.append(self._rest)
            self._rest = b""
        for line in filter(None, lines):
            self._log(line)
        return bool(data)

    def _log(self, line: bytes) -> None:
        level, source, request_id, message = marked_lines.parse(line)
        labels = self._labels._replace(request_id=request_id)
        # A model has no say in the mesh's own loggers, whose lines have no bound.
        name = f"model.{source}" if log_files.is_own(source) else source
        is_bare = not line.startswith(marked_lines.MARK)
        step = LINE_BYTES_MAX if is_bare else len(message)
        for start in range(0, len(message), step):
            text = message[start : start + step]
            record = logging.LogRecord(name, level, "", 0, text, None, None)
            record.__dict__[log_lines.LABELS] = labels
            # Past the levels of loggers: those were set in the process.
            logging.getLogger().handle(record)
