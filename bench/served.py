"""A server under measurement: its processes, their CPU time, its start and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

TAG = "MESHSERVE_SERVED"
GRACE_S = 5.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class NotServing(Exception):
    """The server ended, or did not answer in time; the message has the end of its log."""


@dataclass
class Served:
    """A started server.

    Its processes are found by an environment variable that they inherit, and by descent: daemons
    leave the tree, and a process that sets its title overwrites its environment.
    """

    process: subprocess.Popen[bytes]
    tag: str
    log: Path
    # Processes that outlived `stop` and were killed.
    left: set[int] = field(default_factory=set)

    def pids(self) -> set[int]:
        """Return every living process of the server."""
        parents = _parents()
        own = {
            pid
            for pid in parents
            if pid == self.process.pid or self.tag.encode() in _environment(pid)
        }
        while more := {pid for pid, parent in parents.items() if parent in own} - own:
            own |= more
        return own

    def cpu_s(self) -> dict[int, float]:
        """Return user and system seconds so far, by process."""
        return {pid: spent for pid in self.pids() if (spent := _cpu_s(pid)) is not None}

    def memory_bytes(self) -> int:
        """Return the memory of all processes together (PSS: shared pages count once)."""
        return sum(_memory_bytes(pid) for pid in self.pids())

    def wait_until(self, is_true: Callable[[], bool], timeout_s: float) -> None:
        """Poll until `is_true()`. Raises NotServing if the server ended or time is over."""
        end_s = time.monotonic() + timeout_s
        while not is_true():
            if self.process.poll() is not None:
                raise NotServing(
                    f"it ended with exit code {self.process.returncode}\n{self.log_end()}"
                )
            if time.monotonic() > end_s:
                raise NotServing(f"no answer within {timeout_s:.0f} s\n{self.log_end()}")
            time.sleep(0.05)

    def log_end(self) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def stop(self, timeout_s: float = 60.0) -> None:
        """Ask the server to end, by SIGTERM; kill what it leaves behind."""
        pids = self.pids()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_s)
        self.left = self._living(pids)
        for pid in self.left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._living(self.left)

    def _living(self, pids: set[int]) -> set[int]:
        """Return the processes of these, and of the server, that still live after a moment."""
        end_s = time.monotonic() + GRACE_S
        while (
            left := {pid for pid in pids | self.pids() if _is_alive(pid)}
        ) and time.monotonic() < end_s:
            time.sleep(0.05)
        return left


def own_program(name: str, *arguments: str | Path) -> list[str | Path]:
    """Return the command that runs `bench/NAME.py`, from the repository's root."""
    return [sys.executable, "-m", f"bench.{name}", *arguments]


@contextlib.contextmanager
def serving(command: Sequence[str | Path], log: Path, **environment: str) -> Iterator[Served]:
    """Start a server, its output in `log`, and stop it when the block ends.

    The terminal's Ctrl-C does not reach it.
    """
    tag = f"{TAG}={uuid.uuid4().hex}"
    variables = {**os.environ, **environment, TAG: tag.partition("=")[2]}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=sink,
            stderr=sink,
            env=variables,
            start_new_session=True,
        )
    served = Served(process, tag, log)
    try:
        yield served
    finally:
        served.stop()
        if served.left:
            print(
                f"warning: {len(served.left)} processes were left behind and killed: "
                f"{sorted(served.left)}"
            )


def end_by_signals() -> None:
    """Let Ctrl-C, SIGTERM and a closed terminal unwind the program: no server outlives it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def title(pid: int) -> str:
    """Return a process's title; Ray's actors have their class's."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def spent_s(before: dict[int, float], after: dict[int, float]) -> float:
    """Return CPU seconds between two readings, without processes that ended in between."""
    return sum(now - before.get(pid, 0.0) for pid, now in after.items())


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on; none if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _parents() -> dict[int, int]:
    stats = {
        int(entry.name): _stat(int(entry.name))
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal()
    }
    return {pid: int(stat[1]) for pid, stat in stats.items() if stat}


def _cpu_s(pid: int) -> float | None:
    stat = _stat(pid)
    return (int(stat[11]) + int(stat[12])) * TICK_S if stat else None


def _memory_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _is_alive(pid: int) -> bool:
    stat = _stat(pid)
    return bool(stat) and stat[0] != "Z"


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
