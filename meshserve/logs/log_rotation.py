"""Keeps a log file short while several processes append to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

BYTES_MAX = 10 << 20
OLD_FILES = 3
COPY_BYTES = 1 << 20


def rotate(path: Path, pause: AbstractContextManager[object] | None = None) -> bool:
    """Move the content of a long file to `path.1`, and so on; return whether it was too long.

    The file itself stays and is emptied, because processes that a model or an engine has started
    go on appending to it. What they write in the microseconds before that is lost; a writer that
    waits while `pause` is entered loses nothing. Raises OSError.
    """
    if not path.exists() or path.stat().st_size <= BYTES_MAX:
        return False
    with path.open("r+b") as log, _turn(log.fileno()) as has_turn:
        # Another process of the same file may have emptied it meanwhile.
        if not has_turn or os.fstat(log.fileno()).st_size <= BYTES_MAX:
            return False
        for number in range(OLD_FILES, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                _older(path, number - 1).replace(_older(path, number))
        with os.fdopen(_create(_older(path, 1)), "wb") as old:
            _copy(log.fileno(), old.fileno())
            with pause or contextlib.nullcontext():
                _copy(log.fileno(), old.fileno())
                log.truncate(0)
    return True


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def _turn(descriptor: int) -> Iterator[bool]:
    """Keep other processes from rotating the file; yield False if one does."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _copy(source: int, target: int) -> None:
    """Append what follows the present position of one file to another."""
    while data := os.read(source, COPY_BYTES):
        os.write(target, data)
