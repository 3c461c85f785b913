"""Processes that were stopped (SIGSTOP) and don't go on: they hold requests, and never end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

POLL_S = 0.2

STOPPED_S = 0.8
"""How long a process may be stopped. Profilers stop one for milliseconds only.

A process that is being debugged is in another state, and may stay in it.
"""


class StoppedProcesses:
    """Knows since when processes have been stopped, by a look every POLL_S."""

    def __init__(self) -> None:
        self._since_s: dict[int, float] = {}

    def look(self, pids: Iterable[int], now_s: float) -> list[int]:
        """Return those of the processes that have been stopped for STOPPED_S, at `now_s`."""
        stopped = [pid for pid in pids if _is_stopped(pid)]
        self._since_s = {pid: self._since_s.get(pid, now_s) for pid in stopped}
        return [pid for pid, since_s in self._since_s.items() if now_s - since_s >= STOPPED_S]


def _is_stopped(pid: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    # The name in the second field may have spaces and brackets of its own.
    return fields.rpartition(")")[2].split()[0] == "T"
