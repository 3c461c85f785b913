"""The processes that an engine has started, and theirs: found, remembered, and ended with what they would leave behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import time
from pathlib import Path

import psutil

PAUSE_S = 0.02
SHARED = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory, whoever made it
SEGMENT = re.compile(rf"{SHARED}/(?:psm_|vllm_)\S*", re.ASCII)
SEMAPHORES = "sem.loky-{pid}-*"
"""Shared memory as Python, vLLM and joblib name it. Who ends by SIGKILL leaves it, and it stays until the machine restarts."""


class ProcessTree:
    """All that is started by `multiprocessing` from when it is made, with descendants. Grandchildren whose parent died are remembered."""

    def __init__(self) -> None:
        self._strangers = {child.pid for child in multiprocessing.active_children()}
        self._known: set[psutil.Process] = set()
        self._segments: set[str] = set()

    def remember(self) -> None:
        """Note those that live now, and their shared memory, for when they can't be asked any more."""
        for child in multiprocessing.active_children():
            if child.pid is not None and child.pid not in self._strangers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    parent = psutil.Process(child.pid)
                    self._known.update((parent, *parent.children(recursive=True)))
        for each in self._known:
            with contextlib.suppress(OSError):
                self._segments.update(SEGMENT.findall(Path(f"/proc/{each.pid}/maps").read_text()))

    def living(self) -> list[psutil.Process]:
        """Those that are not gone."""
        self.remember()
        return [each for each in self._known if _is_living(each)]

    def kill(self) -> None:
        """End every one of them, whatever they do."""
        for each in self.living():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()

    def wait(self, timeout_s: float) -> None:
        """Return once they are gone, or the time is over; removes what they had in shared memory."""
        # Not psutil's waiting: it takes the exit status of a child, for which `multiprocessing` then waits for ever.
        end_s = time.monotonic() + timeout_s
        while self.living() and time.monotonic() < end_s:
            time.sleep(PAUSE_S)
        left = {
            semaphore
            for each in self._known
            for semaphore in SHARED.glob(SEMAPHORES.format(pid=each.pid))
        }
        for path in left | {Path(segment) for segment in self._segments}:
            path.unlink(missing_ok=True)


def _is_living(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
