"""The process that keeps an Envoy running, whatever becomes of the process that wanted it.

    python -c BOOT PACKAGES '{"run_dir": …, "log": …, "guardian_pid": …, "command": [ENVOY, …]}'

Envoy is its child and dies with it. The gateway that owns it is connected to its control socket;
one that was killed leaves Envoy to the next gateway, which connects. The keeper ends with the
guardian process, when it is told to, or after it was without an owner for a while. It imports
nothing but the standard library and small modules, so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from meshserve.core import backoff
from meshserve.gateway.envoy import port_holder
from meshserve.storage import stopped_processes

BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from meshserve.gateway.envoy import envoy_keeper; envoy_keeper.main(sys.argv[2])"
)
"""Run as a program that finds this package, and nothing else outside the standard library."""

CONTROL = "envoy-keeper.sock"
ORPHAN_S = 60.0
"""Time for the next gateway to connect: a process on a busy machine may start for half a minute."""

STOP_S = 5.0
RESTARTS = backoff.BackoffPolicy(base_s=0.1, cap_s=1.0, calm_s=10.0, is_first_immediate=True)
WORD_BYTES_MAX = 65536
PR_SET_PDEATHSIG = 1

_PEER = struct.Struct("iII")
"""`struct ucred` of unix(7): pid, uid and gid of the process at the other end."""


class KeeperPlan(NamedTuple):
    """What a keeper starts with. It ends with the process `guardian_pid`."""

    run_dir: str
    log: str
    guardian_pid: int
    command: list[str]


class EnvoyKeeper:
    """Starts an Envoy whenever none runs, and tells its owner.

    The owner gets a line of JSON, first when it connects and then with each change: `pid`, which is
    0 while none runs, `starts`, `code`, the last one's exit code, and `is_owner`, which is false
    when another owner has come. It sends lines too: `{"hold": [ADDRESS, …]}`, `{"refuse": true}`,
    `{"stop": true}`.
    """

    def __init__(self, plan: KeeperPlan) -> None:
        self._plan = plan
        self._events = selectors.DefaultSelector()
        self._holder = port_holder.PortHolder(f"{plan.run_dir}/hot")
        self._envoy: subprocess.Popen[bytes] | None = None
        self._owner: socket.socket | None = None
        self._backoff = backoff.Backoff(RESTARTS)
        self._stopped = stopped_processes.StoppedProcesses()
        self._starts = 0
        self._started_s = 0.0
        self._code: int | None = None
        self._orphan_s = time.monotonic() + ORPHAN_S
        self._is_stopping = False
        self._guardian = os.pidfd_open(plan.guardian_pid)
        self._control = self._listen()

    def _listen(self) -> socket.socket:
        path = Path(self._plan.run_dir) / CONTROL
        path.unlink(missing_ok=True)
        control = socket.socket(socket.AF_UNIX)
        control.bind(str(path))
        control.listen()
        self._events.register(control, selectors.EVENT_READ, self._accept)
        self._events.register(self._guardian, selectors.EVENT_READ, self._stop)
        return control

    def run(self) -> None:
        """Keep an Envoy until it is time to end; leave nothing behind."""
        while not self._is_stopping:
            now_s = time.monotonic()
            if self._envoy is None and self._backoff.is_due(now_s):
                self._start_envoy()
            self._kill_stopped(now_s)
            if self._owner is None and now_s > self._orphan_s:
                break
            for key, _ in self._events.select(self._pause_s()):
                key.data()
        self._end_envoy()
        self._holder.close()
        self._control.close()
        (Path(self._plan.run_dir) / CONTROL).unlink(missing_ok=True)
        self._events.close()
        os.close(self._guardian)
        # Closed last: its end tells the owner that all has ended.
        if self._owner is not None:
            self._owner.close()

    def _pause_s(self) -> float:
        """Return how long nothing is to be done unless something happens."""
        if self._envoy is not None:
            return stopped_processes.POLL_S
        return min(max(0.0, self._backoff.retry_at_s - time.monotonic()), stopped_processes.POLL_S)

    def _kill_stopped(self, now_s: float) -> None:
        """Kill Envoy or its owner if it is stopped: clients would wait for it without an end."""
        pids = [] if self._envoy is None else [self._envoy.pid]
        if self._owner is not None:
            credentials = self._owner.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            pids.append(_PEER.unpack(credentials)[0])
        for pid in self._stopped.look(pids, now_s):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # Envoy

    def _start_envoy(self) -> None:
        command = [*self._plan.command, *self._holder.prepare()]
        with Path(self._plan.log).open("ab") as log:
            self._envoy = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_keeper,  # noqa: PLW1509 - the keeper has no threads
            )
        self._starts += 1
        self._started_s = time.monotonic()
        self._events.register(
            os.pidfd_open(self._envoy.pid), selectors.EVENT_READ, self._note_envoys_end
        )
        if self._holder.fileno() >= 0:
            self._events.register(self._holder, selectors.EVENT_READ, self._holder.answer)
        self._tell_owner()

    def _note_envoys_end(self) -> None:
        self._code = self._forget_envoy()
        now_s = time.monotonic()
        self._backoff.record_failure(now_s, now_s - self._started_s)
        self._tell_owner()

    def _forget_envoy(self) -> int:
        """Return the exit code of the Envoy that has ended."""
        assert self._envoy is not None
        code, self._envoy = self._envoy.wait(), None
        for key in list(self._events.get_map().values()):
            if key.data == self._note_envoys_end:
                self._events.unregister(key.fileobj)
                os.close(key.fd)
            elif key.data == self._holder.answer:
                self._events.unregister(key.fileobj)
        return code

    def _end_envoy(self) -> None:
        if self._envoy is None:
            return
        self._envoy.terminate()
        try:
            self._envoy.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._envoy.kill()
        self._code = self._forget_envoy()

    # The owner

    def _accept(self) -> None:
        connection, _ = self._control.accept()
        self._tell_owner(is_owner=False)
        self._lose_owner()
        self._owner = connection
        self._events.register(connection, selectors.EVENT_READ, self._hear_owner)
        self._tell_owner()

    def _tell_owner(self, *, is_owner: bool = True) -> None:
        if self._owner is not None:
            pid = 0 if self._envoy is None else self._envoy.pid
            counts = {"starts": self._starts, "code": self._code}
            state = {"pid": pid, **counts, "is_owner": is_owner}
            with contextlib.suppress(OSError):
                self._owner.sendall(json.dumps(state).encode() + b"\n")

    def _hear_owner(self) -> None:
        assert self._owner is not None
        try:
            words = self._owner.recv(WORD_BYTES_MAX)
        except OSError:
            words = b""
        if not words:
            self._lose_owner()
            return
        # Each word is far below what one read takes, so none comes in parts.
        for line in words.splitlines():
            word = json.loads(line)
            if "hold" in word:
                self._holder.keep_only(word["hold"])
            if word.get("refuse"):
                self._holder.refuse()
            if word.get("stop"):
                self._stop()

    def _lose_owner(self) -> None:
        if self._owner is not None:
            self._events.unregister(self._owner)
            self._owner.close()
            self._owner = None
            self._orphan_s = time.monotonic() + ORPHAN_S

    def _stop(self) -> None:
        self._is_stopping = True


def _die_with_keeper() -> None:
    """Have this process killed when its parent ends (prctl(2)); let it open many files.

    Each connection is an open file.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))


def main(text: str) -> None:
    """Keep an Envoy by the plan in JSON; return in the starting process once it may be asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keeper = EnvoyKeeper(KeeperPlan(**json.loads(text)))
    # No child of the gateway: Ray ends the children of a process that it ends.
    if os.fork():
        # What the child goes on with must not be closed in good order here.
        os._exit(0)
    os.setsid()
    keeper.run()
    sys.exit(0)
