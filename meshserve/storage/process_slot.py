"""A process's own place in a shared cache: its unfinished files, and what it holds.

`seats/<token>.lock` is locked as long as the process lives; `seats/<token>/temp` are its unfinished files,
`seats/<token>/held/<hex digest>` the artifacts that it uses. The kernel frees the lock of a process that died in whatever way,
and then anybody may clear its place.
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
    """One process's place. Leaves nothing behind when it is given back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._token = uuid.uuid4().hex
        self._lock: int | None = None
        self._numbers = itertools.count()
        self._holds: collections.Counter[str] = collections.Counter()

    @property
    def _place(self) -> Path:
        return self._folder / self._token

    def take(self) -> None:
        """Have the place, if it was not taken before."""
        if self._lock is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._folder / f"{self._token}.lock")
        (self._place / "temp").mkdir(parents=True)
        (self._place / "held").mkdir()

    def give_back(self) -> None:
        """Remove the place; unfinished files and holds go with it."""
        if self._lock is None:
            return
        shutil.rmtree(self._place, ignore_errors=True)
        (self._folder / f"{self._token}.lock").unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None

    @contextlib.contextmanager
    def temp(self) -> Iterator[Path]:
        """A new folder for unfinished files, removed at the end if it is still there."""
        made = self._place / "temp" / str(next(self._numbers))
        made.mkdir()
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def hold(self, digest: str) -> None:
        """Keep the artifact from being trimmed by any process, until as many releases."""
        self.take()
        self._holds[digest] += 1
        if self._holds[digest] == 1:
            self._mark(digest).touch()

    def release(self, digest: str) -> None:
        """End one hold. No error where there is none."""
        if self._holds[digest] <= 1:
            del self._holds[digest]
            self._mark(digest).unlink(missing_ok=True)
        else:
            self._holds[digest] -= 1

    def _mark(self, digest: str) -> Path:
        return self._place / "held" / digest.removeprefix("sha256:")

    def held_by_all(self) -> frozenset[str]:
        """The digests that any living process holds; places of processes that ended are cleared."""
        for lock in self._folder.glob("*.lock"):
            if lock.stem != self._token:
                _clear_if_abandoned(lock)
        return frozenset(f"sha256:{mark.name}" for mark in self._folder.glob("*/held/*"))


def _locked(path: Path) -> int:
    """The descriptor of the lock, taken. Where another process cleared the file between its making and its locking, it is made again."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)


def _clear_if_abandoned(lock: Path) -> None:
    try:
        with lock.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
    except (BlockingIOError, FileNotFoundError):
        return
