"""The program that starts models' processes: it has imported what they need, and forks itself.

A worker can't be forked, because its threads hold locks that the child would wait for. This
program has one thread, no model and no request. It listens to one worker on a socket: each message
asks for one process, and brings the file descriptors of the process's ends of its connections.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import os
import selectors
import signal
import socket
import traceback
from typing import NoReturn

import numpy as np
import orjson

from meshserve import errors
from meshserve.runtimes import runtime_lookup
from meshserve.worker.models import model_process, process_confinement

MESSAGE_BYTES_MAX = 1 << 16
DESCRIPTORS = 3
"""Descriptors that come with a message: of the control socket, a connection and the log."""


PRELOADED = frozenset({"sklearn", "xgboost", "lightgbm", "torch"})
"""Runtimes whose libraries may be imported before a fork: they start no threads until they run.

BLAS libraries start theirs at once, and end them for the time of a fork.
"""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"


class ForkServer:
    """Forks processes as the worker asks, and tells it how each one ended."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ, self._fork)
        self._is_over = False
        self._pids: dict[int, int] = {}  # by pidfd
        self._preloaded: set[str] = set()

    def run(self) -> None:
        """Serve until the worker is gone, then kill every process."""
        _settle_memory()
        # A broken channel says that the worker is gone, as an empty message does.
        with contextlib.suppress(OSError):
            while not self._is_over:
                for key, _ in self._selector.select():
                    key.data()
        self._kill_all()

    def _fork(self) -> None:
        """Fork as the next message asks, or tell the worker why the kernel refuses that."""
        message, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES_MAX, DESCRIPTORS)
        if not message:
            self._is_over = True
            return
        order = orjson.loads(message)
        limits = process_confinement.ProcessLimits(**order["limits"])
        self._preload(order["preload"])
        try:
            pid, pidfd = _fork_confined(limits, descriptors)
        except OSError as error:
            # One that can't be started must not end those that run.
            self._channel.send(orjson.dumps({"refusal": str(error)}))
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._pids[pidfd] = pid
        self._selector.register(pidfd, selectors.EVENT_READ, functools.partial(self._reap, pidfd))
        # A pidfd, unlike a pid, never means another process.
        socket.send_fds(self._channel, [orjson.dumps({"pid": pid})], [pidfd])

    def _preload(self, runtime: str) -> None:
        """Import the runtime's library once, so that all its processes share the memory of it."""
        if runtime in PRELOADED and runtime not in self._preloaded:
            self._preloaded.add(runtime)
            # A model's process meets the same error again, and tells it.
            with contextlib.suppress(errors.MeshError):
                runtime_lookup.by_name(runtime).prepare("cpu")
            _settle_memory()

    def _reap(self, pidfd: int) -> None:
        """Kill what the ended process has left in its group, and tell the worker of its end."""
        self._selector.unregister(pidfd)
        os.close(pidfd)
        pid = self._pids.pop(pidfd)
        # Before the wait: until then no other group can have this number.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        death = {
            "pid": pid,
            "signal_name": _signal_name(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else "",
            "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
        }
        self._channel.send(orjson.dumps({"death": death}))

    def _kill_all(self) -> None:
        # By group: the kernel ends only what this process itself has forked.
        for pid in self._pids.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)


def _settle_memory() -> None:
    gc.collect()
    # Collections would write to the objects that the processes share with this one.
    gc.freeze()


def _fork_confined(
    limits: process_confinement.ProcessLimits, descriptors: list[int]
) -> tuple[int, int]:
    """Return the pid and the pidfd of a new model's process. Raises OSError."""
    if len(descriptors) < DESCRIPTORS:  # the kernel drops those beyond this process's limit
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    server_pid = os.getpid()
    pid = os.fork()
    if not pid:
        _become(server_pid, limits, descriptors)
    try:
        return pid, os.pidfd_open(pid)
    except OSError:
        # Without a pidfd nobody would notice the end of the process.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _become(
    server_pid: int, limits: process_confinement.ProcessLimits, descriptors: list[int]
) -> NoReturn:
    """Run a model's process in this one, which was just forked; never return."""
    try:
        control, connection, log = descriptors
        process_confinement.confine(server_pid, limits, log, (control, connection))
        # Forked processes would otherwise all draw the same random numbers.
        np.random.seed()  # noqa: NPY002 the generator that models use
        model_process.serve(socket.socket(fileno=control), socket.socket(fileno=connection))
    except BaseException:  # noqa: BLE001 this process must not go on as a second fork server
        traceback.print_exc()
        os._exit(1)
    # Not by an exception: what was registered for the end of the fork server must not run here.
    os._exit(0)


def main(descriptor: int) -> None:
    """Serve the worker at the other end of this socket."""
    ForkServer(socket.socket(fileno=descriptor)).run()
