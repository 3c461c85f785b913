"""What is left of a mesh whose process or Ray was killed: processes, and folders of its own.

Run as a program, `leftovers.py PID RUN_DIR FOLDER…` waits until the process PID has ended, and then
removes what it left. It is a process of its own because that one may be killed at any moment, and
imports nothing but the standard library, so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

END_S = 10.0
"""How long processes may take to end after SIGKILL: the kernel frees their memory first."""

POLL_S = 0.02

LOGS = "logs"
"""A link in the run directory to the folder of logs, in which Ray's are kept: a program that is
killed tells nothing else of its end."""

RAYS_LOGS = ("gcs_server*", "raylet*", "python-core-worker*")
LOG_BYTES_MAX = 256 << 10
LOGS_MAX = 100

MARK = "MESHSERVE_RUN_DIR"
"""The environment variable by which a mesh's processes are known: all of them inherit it."""


def begin_guard(run_dir: Path, *folders: Path) -> subprocess.Popen[bytes]:
    """Mark what this process starts from now on, and have it removed when this process ends.

    A process of its own does that, however this one ends.
    """
    os.environ[MARK] = str(run_dir)
    command = [
        sys.executable,
        "-I",
        "-S",
        __file__,
        str(os.getpid()),
        *map(str, (run_dir, *folders)),
    ]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )


def end_guard(guard: subprocess.Popen[bytes]) -> None:
    """End a guard that has nothing to do any more."""
    guard.kill()
    guard.wait()


def remove(run_dir: Path, *folders: Path) -> None:
    """Kill the processes that are marked with `run_dir`, but guards; remove it and the folders.

    These are Ray's GCS, raylet and agents, our actors, Envoy, and what models have started.
    """
    end_s = time.monotonic() + END_S
    while (pids := _marked(run_dir)) and time.monotonic() < end_s:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)
    with contextlib.suppress(OSError):
        _keep_rays_logs(run_dir)
    for folder in (run_dir, *folders):
        shutil.rmtree(folder, ignore_errors=True)


def _keep_rays_logs(run_dir: Path) -> None:
    """Copy the ends of Ray's newest logs to `ray` in the folder of logs, in place of older ones."""
    if not (run_dir / LOGS).is_dir():
        return
    found_logs = [
        path
        for pattern in RAYS_LOGS
        for path in run_dir.glob(f"ray/session_[0-9]*/logs/{pattern}")
        if path.stat().st_size
    ]
    newest = sorted(found_logs, key=lambda path: path.stat().st_mtime)[-LOGS_MAX:]
    target = run_dir / LOGS / "ray"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    for path in newest:
        (target / path.name).write_bytes(path.read_bytes()[-LOG_BYTES_MAX:])


def _marked(run_dir: Path) -> list[int]:
    """Return the living processes that were started for the mesh of this folder."""
    mark = f"{MARK}={run_dir}\0".encode()
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    others = [pid for pid in pids if pid != os.getpid() and mark in _read(pid, "environ")]
    return [pid for pid in others if __file__.encode() not in _read(pid, "cmdline")]


def _read(pid: int, file: str) -> bytes:
    # Empty for a process that has ended and waits for its parent, and for other users' processes.
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""


def main(pid: int, run_dir: Path, *folders: Path) -> None:
    """Wait for the end of the process, then remove what it left."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        select.select([process], [], [])
        os.close(process)
    remove(run_dir, *folders)


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(Path, sys.argv[2:]))
