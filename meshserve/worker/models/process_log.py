"""What a model's process prints, as lines of its worker's log."""

from __future__ import annotations

import logging
import os

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 16
LINE_BYTES_MAX = 1 << 12
"""Bound of one line in the log; the rest of a longer one is the next line."""


class ProcessLog:
    """The reading end of a process's output, and the line that has not ended yet."""

    def __init__(self, descriptor: int, label: str) -> None:
        self.descriptor = descriptor
        self._label = label
        self._rest = b""

    def read(self) -> bool:
        """Log the lines that have come; return whether more may follow. Blocks if none came."""
        data = os.read(self.descriptor, READ_BYTES)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) > LINE_BYTES_MAX:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            for start in range(0, len(line), LINE_BYTES_MAX):
                text = line[start : start + LINE_BYTES_MAX].decode(errors="replace")
                logger.info("%s: %s", self._label, text)
        return bool(data)
