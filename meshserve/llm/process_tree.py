"""Find the processes that an engine starts, and their descendants, and end them without traces."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import time
from pathlib import Path

import psutil

POLL_S = 0.02
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory
# Names of shared memory of Python, vLLM and joblib. A process that is killed leaves its shared
# memory behind, until the machine restarts.
SEGMENT = re.compile(rf"{SHARED_MEMORY}/(?:psm_|vllm_)\S*", re.ASCII)
SEMAPHORES = "sem.loky-{pid}-*"


class ProcessTree:
    """All processes that `multiprocessing` starts after its construction, with descendants.

    Grandchildren are remembered: once their parent is dead, nothing links them to this process.
    """

    def __init__(self) -> None:
        self._ignored = {child.pid for child in multiprocessing.active_children()}
        self._known: set[psutil.Process] = set()
        self._segments: set[str] = set()

    def remember(self) -> None:
        """Note the processes that live now, and their shared memory."""
        for child in multiprocessing.active_children():
            if child.pid is not None and child.pid not in self._ignored:
                with contextlib.suppress(psutil.NoSuchProcess):
                    parent = psutil.Process(child.pid)
                    self._known.update((parent, *parent.children(recursive=True)))
        for process in self._known:
            # No other source shows which segments a process has mapped.
            with contextlib.suppress(OSError):
                maps = Path(f"/proc/{process.pid}/maps").read_text()
                self._segments.update(SEGMENT.findall(maps))

    def living(self) -> list[psutil.Process]:
        """Return the processes that have not ended."""
        self.remember()
        return [process for process in self._known if _is_living(process)]

    def kill(self) -> None:
        """Send SIGKILL to all of them, also to stopped ones, and remove their shared memory."""
        for process in self.living():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # At once: this process may be killed before it can wait for them. What is mapped stays.
        self._unlink()

    def wait(self, timeout_s: float) -> None:
        """Wait for at most `timeout_s` until all have ended, and remove their shared memory."""
        # psutil.wait_procs would take a child's exit status, for which multiprocessing then waits
        # for ever.
        end_s = time.monotonic() + timeout_s
        while self.living() and time.monotonic() < end_s:
            time.sleep(POLL_S)
        self._unlink()

    def _unlink(self) -> None:
        semaphores = (
            SHARED_MEMORY.glob(SEMAPHORES.format(pid=process.pid)) for process in self._known
        )
        left = {path for paths in semaphores for path in paths}
        for path in left | {Path(segment) for segment in self._segments}:
            path.unlink(missing_ok=True)


def _is_living(process: psutil.Process) -> bool:
    try:
        # `is_running` compares times of start too, because ids are used again. A zombie has ended,
        # though nobody has asked for its exit status.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
