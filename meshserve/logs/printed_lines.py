"""What a process prints to its standard output, as lines of its log."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable
from typing import Any

from meshserve.logs import run_context

LINE_CHARS_MAX = 4096
"""Bound of one line in the log; the rest of a longer one is the next line."""

# A progress bar ends its lines by a carriage return.
LINE_ENDS = re.compile(r"\r\n|\n|\r")

WriteLine = Callable[[str, str, run_context.RunLabels], None]
"""Takes the name of the stream, a line of it without its end, and what is known of its run."""


class PrintedLines(io.TextIOBase):
    """Stands for `sys.stdout` or `sys.stderr`.

    Each thread has a line of its own that has not ended yet, so that two models that print at the
    same time do not mix theirs. It is written when it ends, when it is flushed, when the thread
    runs something else, or with `write_rests`.
    """

    def __init__(self, name: str, descriptor: int, write_line: WriteLine) -> None:
        """`descriptor` is where the stream's output went until now, and native code's goes."""
        self.name = name
        self._descriptor = descriptor
        self._write_line = write_line
        # By thread. A pop is atomic, so whoever takes a rest is the only one to have it.
        self._rests: dict[int, tuple[str, run_context.RunLabels]] = {}
        self.buffer = _PrintedBytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """UTF-8, whatever the locale of the machine."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """How what UTF-8 has no form of is written."""
        return "backslashreplace"

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor, which models give to processes that they start."""
        return self._descriptor

    def reconfigure(self, **_: Any) -> None:
        """Do nothing: scripts set an encoding or a buffer, and lines need neither."""

    def write(self, text: str) -> int:
        """Take printed text, and write the lines that it ends."""
        thread, labels = threading.get_ident(), run_context.find()
        rest, begun_by = self._rests.pop(thread, ("", labels))
        if rest and begun_by != labels:
            self._write(rest, begun_by)
            rest = ""
        *lines, rest = LINE_ENDS.split(rest + text)
        for line in lines:
            self._write(line, labels)
        if len(rest) > LINE_CHARS_MAX:
            self._write(rest, labels)
        elif rest:
            self._rests[thread] = rest, labels
        return len(text)

    def flush(self) -> None:
        """Write the line that this thread has begun."""
        self._write(*self._rests.pop(threading.get_ident(), ("", run_context.NO_RUN)))

    def write_rests(self) -> None:
        """Write the lines that have begun in any thread."""
        for thread in tuple(self._rests):
            self._write(*self._rests.pop(thread, ("", run_context.NO_RUN)))

    def _write(self, line: str, labels: run_context.RunLabels) -> None:
        # A line without words is left out: `print()` separates what a log separates anyway.
        if line.strip():
            for start in range(0, len(line), LINE_CHARS_MAX):
                self._write_line(self.name, line[start : start + LINE_CHARS_MAX], labels)


class _PrintedBytes(io.BufferedIOBase):
    """What scripts write bytes to: `sys.stdout.buffer`."""

    def __init__(self, text: PrintedLines) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._text.fileno()

    def write(self, data: Any) -> int:
        self._text.write(bytes(data).decode("utf-8", "replace"))
        return len(data)

    def flush(self) -> None:
        self._text.flush()
