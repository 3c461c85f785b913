"""The copies whose code runs at this moment, in a file that outlives the process.

Code of a model may end its process at any instruction. What ran then is known from the file alone:
shared memory, which the kernel keeps when the process has gone. Other workers of the node read it
(`dead_workers`).
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import mmap
import os
import shutil
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import xxhash

from meshserve.storage import file_lock

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder made in it is checked for its owner
SUFFIX = ".journal"
CRASH_SUFFIX = ".crash"

SLOT_BYTES = 96
"""Room for the longest key of a copy: `sha256:`, 64 hex digits, a slash and 12 more."""

SLOTS = 256
"""The first one is the event loop's, the others are for threads, of which 64 run models."""

STALE_S = 3600.0
"""The age at which a folder without a living worker is removed: its mesh was killed as a whole."""

# Fills the slot with zeros, so that nothing is left of a longer key.
_put_key = struct.Struct(f"{SLOT_BYTES}s").pack_into


def folder(run_dir: str) -> Path:
    """Return the folder of the journals of all workers that share `run_dir`, made if missing.

    It is in shared memory: a page of a file on a disk is written back every few seconds, and the
    event loop's next write to it would wait for the disk. It is `run_dir` itself if the machine has
    no shared memory, or if another user has taken the name.
    """
    # Named by its real path, so that all spellings of a folder have the same journals.
    name = f"meshserve-{os.getuid()}-{xxhash.xxh64_hexdigest(os.path.realpath(run_dir).encode())}"
    chosen = SHARED_MEMORY / name
    with contextlib.suppress(OSError):
        chosen.mkdir(mode=0o700, exist_ok=True)
        state = chosen.lstat()
        if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid():
            return chosen
    return Path(run_dir)


def remove_stale(now_s: float) -> None:
    """Remove this user's folders of journals that have been without a living worker for an hour.

    `now_s` is the time of day (`time.time`). A mesh that ends in good order leaves none.
    """
    for left in SHARED_MEMORY.glob(f"meshserve-{os.getuid()}-*"):
        with contextlib.suppress(OSError):
            is_old = now_s - left.lstat().st_mtime > STALE_S
            if is_old and not any(map(_is_living, left.glob(f"*{SUFFIX}"))):
                shutil.rmtree(left)


def _is_living(path: Path) -> bool:
    if f".{os.getpid()}." in path.name:
        return True
    with path.open("r+b") as journal:
        return file_lock.find_holder(journal.fileno()) is not None


class RunJournal:
    """One process's journal; without a folder it is in this process's own memory, for tests.

    A slot holds the key of a copy whose code runs, or begins with a zero. The process has a lock on
    the file as long as it lives. It is a lock of the process and not of the open file, because a
    model may fork: a child would keep the other kind alive. The kernel also ends it before it
    closes the sockets of a dying process, so whoever notices a broken connection finds it ended.
    """

    def __init__(self, directory: Path | None = None, worker_id: str = "") -> None:
        self.worker_id = worker_id
        self.path = directory / f"{worker_id}.{os.getpid()}{SUFFIX}" if directory else None
        self._crash: BinaryIO | None = None
        self._file: BinaryIO | None = None
        self._slots = mmap.mmap(-1, SLOTS * SLOT_BYTES)
        if self.path is not None:
            try:
                self._begin_file(self.path)
            except OSError as error:
                logger.warning("what runs here is not noted for other workers: %s", error)
                self.path = None
        # Of all blocks that ran code in threads. Two at once may count as one, which does no harm.
        self.begun = 0
        # Taking from and appending to a list are atomic, so threads need no lock for it.
        self._free = [number * SLOT_BYTES for number in range(SLOTS - 1, 0, -1)]

    def _begin_file(self, path: Path) -> None:
        """Move the slots into the file. Raises OSError."""
        self._file = _create(path)
        # Locked while it is empty: others take a file with slots but no lock for a dead one's.
        file_lock.take(self._file.fileno())
        # Not only made longer: if there were no room, a note would end the process by SIGBUS.
        os.posix_fallocate(self._file.fileno(), 0, SLOTS * SLOT_BYTES)
        self._slots = mmap.mmap(self._file.fileno(), SLOTS * SLOT_BYTES)

    def begin(self, key: str) -> None:
        """Note that the event loop's thread begins to run the copy."""
        _put_key(self._slots, 0, key.encode())

    def end(self) -> None:
        """Note that the event loop's thread runs no copy any more."""
        self._slots[0] = 0

    @property
    def is_busy(self) -> bool:
        """Whether code of any copy runs in a thread now."""
        return len(self._free) < SLOTS - 1

    @contextlib.contextmanager
    def running(self, key: str) -> Iterator[None]:
        """Note, in any thread, that code of the copy runs within this block.

        A run beyond the number of slots goes without a note.
        """
        self.begun += 1
        try:
            slot = self._free.pop()
        except IndexError:
            yield
            return
        _put_key(self._slots, slot, key.encode())
        try:
            yield
        finally:
            # Before another thread may take the slot, whose note this would end.
            self._slots[slot] = 0
            self._free.append(slot)

    def note_crashes(self) -> None:
        """Have a signal that kills this process noted beside the journal, with Python's stacks.

        This replaces where the whole process has noted it until now.
        """
        if self.path is not None:
            self._crash = _create(self.path.with_suffix(CRASH_SUFFIX))
            faulthandler.enable(self._crash)

    def close(self) -> None:
        """Remove the file: the process ends in good order."""
        if self._file is not None and self.path is not None:
            # Before the lock ends, or others would take it for the journal of a dead worker.
            self.path.unlink(missing_ok=True)
            self.path.with_suffix(CRASH_SUFFIX).unlink(missing_ok=True)
            if self.path.parent.parent == SHARED_MEMORY:
                # Only an empty folder is removed, so the last worker to stop removes it.
                with contextlib.suppress(OSError):
                    self.path.parent.rmdir()
            # The map stays open: threads of models that hang may still write to it.
            self._file.close()
        if self._crash is not None:
            # Back to standard error, because the file of notes is closed next.
            faulthandler.enable()
            self._crash.close()


def _create(path: Path) -> BinaryIO:
    """Create the file, for this user alone; the processes that this one starts do not get it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "w+b")


def running_keys(slots: bytes) -> frozenset[str]:
    """Return the keys in the content of a journal."""
    notes = (slots[start : start + SLOT_BYTES] for start in range(0, len(slots), SLOT_BYTES))
    return frozenset(note.rstrip(b"\0").decode("ascii", "replace") for note in notes if note[0])
