"""Where the log lines of a process go."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
BYTES_MAX = 10 << 20
OLD_FILES = 3


def to_file(folder: str, name: str) -> None:
    """Write what this process logs from now on to `folder/name.log`; old lines go when it grows."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        path / f"{name}.log", maxBytes=BYTES_MAX, backupCount=OLD_FILES
    )
    handler.setFormatter(logging.Formatter(FORMAT))
    ours = logging.getLogger("meshserve")
    ours.setLevel(logging.INFO)
    ours.addHandler(handler)
    ours.propagate = False
