"""Log files of the processes of a mesh."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
BYTES_MAX = 10 << 20
OLD_FILES = 3


def to_file(folder: str, name: str) -> None:
    """Write what this process logs to `folder/name.log`, and to three older files of 10 MiB."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        path / f"{name}.log", maxBytes=BYTES_MAX, backupCount=OLD_FILES
    )
    handler.setFormatter(logging.Formatter(FORMAT))
    logger = logging.getLogger("meshserve")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False
