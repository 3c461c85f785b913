"""Why an engine's processes fail. They log it and die; what reaches their parent says only that they did."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

FILE = "reasons.jsonl"
CONFIG = "logging.json"
LATELY_S = 30.0
FORMAT = "%(levelname)s %(asctime)s [%(fileinfo)s:%(lineno)d] %(message)s"


class CrashLog(logging.Handler):
    """Appends every exception that is logged to a file: a line each, with the time. Not in the parent, which may raise its own."""

    def __init__(self, path: str, parent_pid: int) -> None:
        super().__init__(logging.ERROR)
        self._path = Path(path)
        self._is_parent = os.getpid() == parent_pid

    def emit(self, record: logging.LogRecord) -> None:
        """Write the exception down, where there is one."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None or self._is_parent:
            return
        try:
            with self._path.open("a") as file:
                file.write(json.dumps([record.created, f"{type(error).__name__}: {error}"]) + "\n")
        except OSError:
            self.handleError(record)


def configure(folder: Path) -> Path:
    """Write vLLM's logging configuration: its own output on stderr, and the reasons in this folder. Returns where it is."""
    told = {
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
                "path": str(folder / FILE),
                "parent_pid": os.getpid(),
            },
        },
        "loggers": {"vllm": {"handlers": ["vllm", "reasons"], "level": "INFO", "propagate": False}},
    }
    path = folder / CONFIG
    path.write_text(json.dumps(told))
    return path


def first(folder: Path, now_s: float) -> str:
    """The first exception that was logged there lately: the later ones follow from it. Empty where there is none."""
    path = folder / FILE
    lines = path.read_text().splitlines() if path.exists() else []
    logged = (json.loads(line) for line in lines)
    return next((str(reason) for logged_s, reason in logged if now_s - logged_s <= LATELY_S), "")
