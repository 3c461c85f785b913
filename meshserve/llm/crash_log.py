"""Keep the exceptions that an engine's processes log before they die: the parent sees only the end.

The first of them is the reason of an engine's failure.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

LOG_FILE = "reasons.jsonl"
CONFIG_FILE = "logging.json"
RECENT_S = 30.0
FORMAT = "%(levelname)s %(asctime)s [%(fileinfo)s:%(lineno)d] %(message)s"


class CrashLog(logging.Handler):
    """Appends every exception that a child process logs to a file, as one line of JSON.

    Exceptions of the parent process are left out, because it can raise them.
    """

    def __init__(self, path: str, parent_pid: int) -> None:
        super().__init__(logging.ERROR)
        self._path = Path(path)
        self._is_parent = os.getpid() == parent_pid

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's exception, if it has one."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None or self._is_parent:
            return
        # The file is opened for each record, because several processes append to it.
        try:
            with self._path.open("a") as file:
                file.write(json.dumps([record.created, f"{type(error).__name__}: {error}"]) + "\n")
        # An engine must go on where its reasons can't be written.
        except OSError:
            self.handleError(record)


def configure(folder: Path) -> Path:
    """Write a logging configuration for vLLM into `folder`, and return its path.

    It keeps vLLM's own output on stderr, and adds a CrashLog in this folder.
    """
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "vllm": {
                "class": "vllm.logging_utils.NewLineFormatter",
                "format": FORMAT,
                "datefmt": "%m-%d %H:%M:%S",
            }
        },
        "handlers": {
            "vllm": {
                "class": "logging.StreamHandler",
                "formatter": "vllm",
                "stream": "ext://sys.stderr",
            },
            "reasons": {
                "()": f"{__name__}.{CrashLog.__name__}",
                "path": str(folder / LOG_FILE),
                "parent_pid": os.getpid(),
            },
        },
        "loggers": {"vllm": {"handlers": ["vllm", "reasons"], "level": "INFO", "propagate": False}},
    }
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(config))
    return path


def first_reason(folder: Path, now_s: float) -> str:
    """Return the first exception logged within RECENT_S, "" without any; `now_s` is Unix time.

    The first exception is the cause; later ones follow from it.
    """
    path = folder / LOG_FILE
    # Older exceptions belong to requests that failed without ending the engine.
    lines = path.read_text().splitlines() if path.exists() else []
    logged = (json.loads(line) for line in lines)
    return next((str(reason) for logged_s, reason in logged if now_s - logged_s <= RECENT_S), "")
