"""The log file of a process: what it logs, what its models print, and what native code writes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from meshserve.logs import line_budget, log_lines, log_rotation, printed_lines, run_context

OWN = "meshserve"
"""The logger above all of the mesh's own; their lines are never dropped."""

KEEP_S = 2.0
"""How often a file is looked at for its length, and begun lines are written."""


class LogPlan(NamedTuple):
    """Where processes log, and in which form: `text` or `json`.

    A process that `takes_output` has what it prints there too. `access` is the share of requests
    that get a line in the gateways' access log.
    """

    folder: str
    form: str = "text"
    takes_output: bool = False
    access: float = 0.0


def is_own(name: str) -> bool:
    """Return whether a logger of this name is the mesh's: modules of models begin alike."""
    return name == OWN or name.startswith(f"{OWN}.")


class LogFile(logging.Handler):
    """Appends records to a file. A full disk costs lines, and nothing else.

    What is not the mesh's own has a bound for each model.
    """

    def __init__(self, path: Path, form: str) -> None:
        super().__init__()
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self.path = path
        self.descriptor = os.open(path, flags, 0o600)
        self._budget = line_budget.LineBudget()
        self.setFormatter(log_lines.FORMS[form]())

    def emit(self, record: logging.LogRecord) -> None:
        """Append the record, unless its model has written too much."""
        labels = log_lines.labels_of(record)
        if not is_own(record.name):
            dropped = self._budget.take(labels.model, record.created)
            if dropped < 0:
                return
            if dropped:
                lost = _record(OWN, f"{dropped} lines before this one were dropped", labels)
                self._append(lost)
        record.__dict__[log_lines.LABELS] = labels
        self._append(record)

    def _append(self, record: logging.LogRecord) -> None:
        # Whatever a model logs, and however full the disk is, must not end its request.
        with contextlib.suppress(Exception):
            line = f"{self.format(record)}\n"
            os.write(self.descriptor, line.encode("utf-8", "backslashreplace"))

    def write_line(self, stream: str, line: str, labels: run_context.RunLabels) -> None:
        """Append a line that was printed to a stream."""
        # Past the loggers: a model may set their levels, and remove their handlers.
        self.handle(_record(stream, line, labels))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Have other threads wait with their lines."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def close(self) -> None:
        """Keep the file open: `logging.basicConfig(force=True)` of a model closes handlers."""


def _record(name: str, line: str, labels: run_context.RunLabels) -> logging.LogRecord:
    record = logging.LogRecord(name, logging.INFO, "", 0, line, None, None)
    record.__dict__[log_lines.LABELS] = labels
    return record


def to_file(plan: LogPlan, name: str, *others: str) -> LogFile:
    """Write what this process logs to `folder/name.log`, and to three older files of 10 MiB.

    `others` are files that other programs append to, which are kept as short.
    """
    handler = LogFile(Path(plan.folder) / f"{name}.log", plan.form)
    own = logging.getLogger(OWN)
    own.setLevel(logging.INFO)
    own.addHandler(handler)
    own.propagate = False
    keeper = _Keeper(handler, tuple(map(Path, others)))
    threading.Thread(target=keeper.run, name="log keeper", daemon=True).start()
    return handler


def take_output(handler: LogFile, level: int) -> None:
    """Have all that this process prints in its log, and what libraries log from `level` on.

    Native code and processes that are started from here write to the file itself, without a time:
    a pipe would lose the last words of a process that crashes.
    """
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        with contextlib.suppress(Exception):
            stream.flush()
        os.dup2(handler.descriptor, number)
    sys.stdout = printed_lines.PrintedLines("stdout", 1, handler.write_line)
    sys.stderr = printed_lines.PrintedLines("stderr", 2, handler.write_line)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)


class _Keeper:
    """Keeps a process's log short, and its own lines from being turned off by a model's code."""

    def __init__(self, handler: LogFile, others: tuple[Path, ...]) -> None:
        self._handler = handler
        self._others = others

    def run(self) -> None:
        """Look after the files for as long as the process lives."""
        # A thread, because a model may keep the event loop busy while it fills the file.
        while True:
            time.sleep(KEEP_S)
            self.keep()

    def keep(self) -> None:
        """Look after the files once."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, printed_lines.PrintedLines):
                stream.write_rests()
        with contextlib.suppress(OSError):
            log_rotation.rotate(self._handler.path, self._handler.paused())
        for path in self._others:
            with contextlib.suppress(OSError):
                log_rotation.rotate(path)
        # `logging.config.dictConfig` disables all loggers that it does not name.
        logging.disable(logging.NOTSET)
        for name, logger in tuple(logging.root.manager.loggerDict.items()):
            if is_own(name) and isinstance(logger, logging.Logger):
                logger.disabled = False
