"""The living processes of a mesh on one node: each has a locked file, named by its id."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from meshserve.storage import file_lock


def register(folder: Path) -> None:
    """Note in `folder`, which is made if it is missing, that this process lives. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Never closed: the kernel ends the lock with the process, however that ends.
    descriptor = os.open(folder / str(os.getpid()), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    file_lock.take(descriptor)


def deregister(folder: Path) -> None:
    """Count this process as ended. It must not have registered twice."""
    # The lock goes on, on a file that no one finds.
    (folder / str(os.getpid())).unlink(missing_ok=True)


def find_others(folder: Path) -> list[int]:
    """Return the ids of the registered processes that live, without this one.

    The files of those that have ended are removed.
    """
    # Opening and closing the own file would end the lock on it.
    own = folder / str(os.getpid())
    paths = list(folder.iterdir()) if folder.exists() else []
    return [int(path.name) for path in paths if path != own and _is_held(path)]


def _is_held(path: Path) -> bool:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # A holder in another container has no id here, and the name would mean another process.
            if str(file_lock.find_holder(descriptor)) == path.name:
                return True
        finally:
            os.close(descriptor)
        # One that lives may be about to lock the file.
        if path.name.isdecimal() and not Path(f"/proc/{path.name}").exists():
            path.unlink(missing_ok=True)
    return False
