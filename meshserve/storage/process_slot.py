"""A process's own slot in a shared cache: its unfinished files, and the artifacts that it holds.

`<token>.lock` is locked as long as the process lives; `<token>/temp` has its unfinished files,
`<token>/held/<hex digest>` marks the artifacts that it uses. The kernel releases the lock however
the process ends, and then another process may remove the slot.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import itertools
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


class ProcessSlot:
    """One process's slot, empty until `take`. Nothing of it is left after `give_back`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._token = uuid.uuid4().hex
        self._own_folder = folder / self._token
        self._held = self._own_folder / "held"
        self._lock_file = folder / f"{self._token}.lock"
        self._lock: int | None = None
        self._numbers = itertools.count()
        self._holds: collections.Counter[str] = collections.Counter()

    def take(self) -> None:
        """Create the slot, if that was not done before, or if somebody has removed it since."""
        if self._lock is not None:
            if self._held.is_dir() and self._lock_file.exists():
                return
            os.close(self._lock)
            # If what follows fails, the next call must not close a file that got this number since.
            self._lock = None
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._lock_file)
        (self._own_folder / "temp").mkdir(parents=True, exist_ok=True)
        self._held.mkdir(exist_ok=True)
        # The marks of what is held have gone with a slot that was removed.
        for digest in self._holds:
            self._mark(digest).touch()

    def give_back(self) -> None:
        """Remove the slot, with its unfinished files and holds."""
        if self._lock is None:
            return
        # The lock ends last: until then no other process clears the same files.
        shutil.rmtree(self._own_folder, ignore_errors=True)
        self._lock_file.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None

    @contextlib.contextmanager
    def temp(self) -> Iterator[Path]:
        """Yield a new folder for unfinished files; remove it at the end if it still exists."""
        # In the cache itself: entries come and go by renames, which need one file system.
        folder = self._own_folder / "temp" / str(next(self._numbers))
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def hold(self, digest: str) -> None:
        """Keep all processes from removing the artifact until `release`, once per hold."""
        self.take()
        self._holds[digest] += 1
        if self._holds[digest] == 1:
            self._mark(digest).touch()

    def release(self, digest: str) -> None:
        """End one hold; do nothing if there is none."""
        if self._holds[digest] <= 1:
            del self._holds[digest]
            self._mark(digest).unlink(missing_ok=True)
        else:
            self._holds[digest] -= 1

    def _mark(self, digest: str) -> Path:
        return self._held / digest.removeprefix("sha256:")

    def held_by_all(self) -> frozenset[str]:
        """Return the digests that any living process holds; clear slots of ended processes."""
        # First, because the marks of processes that have ended must keep nothing.
        for lock in self._folder.glob("*.lock"):
            if lock.stem != self._token:
                _clear_if_abandoned(lock)
        return frozenset(f"sha256:{mark.name}" for mark in self._folder.glob("*/held/*"))


def _lock(path: Path) -> int:
    """Create and lock a file; return its descriptor."""
    while True:
        # Not for children, one of which could keep the lock beyond this process's end.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Another process may have cleared the file after it was created and before it was locked.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)


def _clear_if_abandoned(lock: Path) -> None:
    try:
        with lock.open("rb") as stream:
            # Fails at once while its process lives.
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The lock's file goes last: by it the next trim finds what an interrupted one has left.
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
    except (BlockingIOError, FileNotFoundError):
        return
