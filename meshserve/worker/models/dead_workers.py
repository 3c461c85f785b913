"""Find workers of this node that have died, and what they ran, by the journals that they left."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from meshserve.core.values import containment
from meshserve.storage import file_lock
from meshserve.worker.models import run_journal

# The words of Python's faulthandler, at the begin of its note (Modules/faulthandler.c).
SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating point exception": "SIGFPE",
}
_FATAL = re.compile(r"Fatal Python error: ([A-Za-z ]+)")


class DeadWorkers:
    """The other workers of a node, as one of them sees them by the journals in their folder."""

    def __init__(self, own: run_journal.RunJournal) -> None:
        self._folder = str(own.path.parent) if own.path else ""
        self._worker_id = own.worker_id
        # Opening and closing a file of one's own would end the lock on it (man 2 fcntl).
        self._passed = {own.path.name} if own.path else set()

    def look(self) -> list[containment.WorkerDeath]:
        """Return the deaths since the last call, of workers that did not stop in good order.

        This takes some 25 µs with three workers. The journals of this worker's own former
        processes are removed: they are of no use once they are read.
        """
        if not self._folder:
            return []
        try:
            # Not `iterdir`, which makes an object of each name: this is called with each cold load.
            names = os.listdir(self._folder)  # noqa: PTH208
        except FileNotFoundError:
            return []
        deaths = []
        for name in names:
            if name.endswith(run_journal.SUFFIX) and name not in self._passed:
                death = self._read(name)
                if death is not None:
                    self._passed.add(name)
                    deaths.append(death)
        return deaths

    def _read(self, name: str) -> containment.WorkerDeath | None:
        """Return the death of the worker with this journal, None if it lives or has stopped."""
        worker_id, _, pid = name.removesuffix(run_journal.SUFFIX).rpartition(".")
        if not pid.isdigit() or int(pid) == os.getpid():
            return None
        journal = f"{self._folder}/{name}"
        try:
            descriptor = os.open(journal, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if file_lock.find_holder(descriptor) is not None:
                return None
            slots = os.pread(descriptor, run_journal.SLOTS * run_journal.SLOT_BYTES, 0)
        finally:
            os.close(descriptor)
        # A journal that is being made has no slots and no lock yet.
        if not slots:
            return None
        path = Path(journal)
        crash = path.with_suffix(run_journal.CRASH_SUFFIX)
        keys = sorted(run_journal.running_keys(slots))
        death = containment.WorkerDeath(worker_id, int(pid), tuple(keys), _signal(crash))
        if worker_id == self._worker_id:
            path.unlink(missing_ok=True)
            crash.unlink(missing_ok=True)
        return death


def _signal(crash: Path) -> str:
    """Return the signal that a crash note names, empty without one."""
    with contextlib.suppress(OSError):
        words = _FATAL.search(crash.read_text("utf-8", "replace"))
        if words:
            return SIGNALS.get(words[1].strip(), words[1].strip())
    return ""
