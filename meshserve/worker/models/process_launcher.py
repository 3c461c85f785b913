"""Starts the processes of one worker's models, and learns what they print and how they end.

One thread owns the fork server, its channel and all logs; other threads ask it.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import queue
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from meshserve import errors
from meshserve.core.values import process_death
from meshserve.logs import run_context
from meshserve.worker.models import (
    fork_server,
    isolated_process,
    process_confinement,
    process_log,
    process_memory,
)

logger = logging.getLogger(__name__)

PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from meshserve.worker.models import fork_server; fork_server.main(int(sys.argv[1]))"
)
START_S = 60.0
END_S = 5.0


@dataclass(slots=True)
class _Launch:
    """A process that is wanted: the order for it, and its ends of the connections."""

    process: isolated_process.IsolatedProcess
    labels: run_context.RunLabels
    order: dict[str, object]
    descriptors: list[int]
    log: int
    answer: Future[None]

    def close_descriptors(self) -> None:
        """Close the process's own ends, once it has them or will never be."""
        for descriptor in self.descriptors:
            os.close(descriptor)


_Request = _Launch | isolated_process.IsolatedProcess | None
"""A process to start, a process to kill, or the end of everything."""


class ProcessLauncher:
    """The processes of one worker's models, by pid.

    `proven_runtimes` have loaded a model: importing their libraries crashes nothing.
    `on_death` is called with each that has ended, in the launcher's own thread.
    """

    def __init__(
        self,
        on_death: Callable[[isolated_process.IsolatedProcess], None],
        library_bytes_max: int = sys.maxsize,
    ) -> None:
        """Libraries that take more than `library_bytes_max` are not imported ahead."""
        self.library_bytes_max = library_bytes_max
        self.processes: dict[int, isolated_process.IsolatedProcess] = {}
        self.proven_runtimes: set[str] = set()
        self._on_death = on_death
        self._requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._pidfds: dict[int, int] = {}  # by pid; unlike a pid, it never means another process
        self._waking, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ, self._take_requests)
        self._server: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        # In order, because the fork server answers one order after the other.
        self._pending: collections.deque[_Launch] = collections.deque()
        self._logs: set[int] = set()
        self._is_closed = False
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="model processes", daemon=True)
        self._thread.start()

    def launch(
        self,
        key: str,
        labels: run_context.RunLabels,
        runtime: str,
        limits: process_confinement.ProcessLimits,
    ) -> isolated_process.IsolatedProcess:
        """Return a new process for the copy `key`, whose output is logged with `labels`.

        `runtime` names the one that will load the model: once it has loaded one, its library is
        imported by the fork server. Blocks for milliseconds, the first time for the start of the
        fork server, later once for the import. Raises LoadFailed.
        """
        # Message boundaries keep descriptors and what they are for together.
        control, other_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection, other_connection = socket.socketpair()
        log, other_log = os.pipe()
        launch = _Launch(
            isolated_process.IsolatedProcess(key, control, connection, self._request),
            labels,
            {
                "limits": asdict(limits),
                "preload": runtime if runtime in self.proven_runtimes else "",
            },
            [other_control.detach(), other_connection.detach(), other_log],
            log,
            Future(),
        )
        self._request(launch)
        try:
            launch.answer.result(START_S)
        except TimeoutError:
            launch.answer.cancel()
            launch.process.close()
            raise errors.LoadFailed(
                f"no process for the model has started within {START_S:g} s"
            ) from None
        except errors.LoadFailed:
            launch.process.close()
            raise
        return launch.process

    def _request(self, request: _Request) -> None:
        self._requests.put(request)
        with contextlib.suppress(OSError):  # closed: then every process is dead
            self._waking.send(b"r")
        # Asked after `put`, so that either the thread or this one takes the request.
        if self._has_ended:
            self._refuse_late_requests()

    def _refuse_late_requests(self) -> None:
        """Refuse the starts that came behind the order to close: a worker may close meanwhile."""
        with contextlib.suppress(queue.Empty):
            while True:
                request = self._requests.get_nowait()
                if isinstance(request, _Launch):
                    request.close_descriptors()
                    _refuse(request, "the worker is closing")

    def server_bytes(self) -> int:
        """Return the memory of the fork server, 0 if it does not run."""
        server = self._server
        if server is not None:
            with contextlib.suppress(OSError, ValueError):
                return process_memory.private_bytes(server.pid)
        return 0

    def close(self) -> None:
        """End the fork server, and with it every process."""
        self._request(None)
        self._thread.join(END_S)

    # In the thread

    def _run(self) -> None:
        while not self._is_closed:
            for key, _ in self._selector.select():
                key.data()
        self._lose_server()
        for log in self._logs:
            os.close(log)
        self._selector.close()
        self._waking.close()
        self._woken.close()
        self._has_ended = True
        self._refuse_late_requests()

    def _take_requests(self) -> None:
        self._woken.recv(fork_server.MESSAGE_BYTES_MAX)
        # `empty` is sure here, because no other thread takes from the queue.
        while not self._requests.empty():
            match self._requests.get():
                case None:
                    self._is_closed = True
                case _Launch() as launch:
                    self._ask_for(launch)
                case process:
                    self._kill(process.pid)

    def _ask_for(self, launch: _Launch) -> None:
        """Ask the fork server for a process, and start the server if it does not run."""
        # Before it is sent: if that fails, it is refused with the others that wait.
        self._pending.append(launch)
        try:
            message = orjson.dumps(launch.order)
            socket.send_fds(self._started_channel(), [message], launch.descriptors)
        except OSError:
            logger.exception("the program that starts models' processes does not answer")
            self._lose_server()
        finally:
            launch.close_descriptors()

    def _started_channel(self) -> socket.socket:
        if self._channel is None:
            self._channel, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._selector.register(self._channel, selectors.EVENT_READ, self._read_channel)
            # Not the current folder: it may have a file that is named like a library.
            folders = [folder for folder in sys.path if folder]
            # Closed here, or the channel would not break when the server ends.
            with other_end:
                self._server = subprocess.Popen(
                    [sys.executable, "-P", "-c", PROGRAM, str(other_end.fileno()), *folders],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(other_end.fileno(),),
                    start_new_session=True,
                )
        return self._channel

    def _read_channel(self) -> None:
        assert self._channel is not None
        try:
            message, descriptors, _, _ = socket.recv_fds(
                self._channel, fork_server.MESSAGE_BYTES_MAX, 1
            )
        except OSError:
            message, descriptors = b"", []
        if not message:
            self._lose_server()
            return
        fields: dict[str, Any] = orjson.loads(message)
        if "death" in fields:
            death = fields["death"]
            self._end(death.pop("pid"), process_death.ProcessDeath(**death))
        elif "refusal" in fields:
            _refuse(
                self._pending.popleft(),
                f"no process for the model could be started: {fields['refusal']}",
            )
        else:
            self._begin(self._pending.popleft(), fields["pid"], descriptors[0])

    def _kill(self, pid: int) -> None:
        if pid in self._pidfds:
            signal.pidfd_send_signal(self._pidfds[pid], signal.SIGKILL)

    def _begin(self, launch: _Launch, pid: int, pidfd: int) -> None:
        launch.process.pid = pid
        self._pidfds[pid] = pidfd
        self.processes[pid] = launch.process
        log = process_log.ProcessLog(launch.log, launch.labels)
        self._logs.add(launch.log)
        self._selector.register(launch.log, selectors.EVENT_READ, lambda: self._read_log(log))
        if launch.answer.set_running_or_notify_cancel():
            launch.answer.set_result(None)
        else:
            # Its caller gave up after START_S, so nobody would ever end it.
            self._kill(pid)

    def _read_log(self, log: process_log.ProcessLog) -> None:
        if not log.read():
            self._selector.unregister(log.descriptor)
            self._logs.discard(log.descriptor)
            os.close(log.descriptor)

    def _end(self, pid: int, death: process_death.ProcessDeath) -> None:
        process = self.processes.pop(pid)
        os.close(self._pidfds.pop(pid))
        reason = process.stopped_for or death.reason
        process.record_death(replace(death, reason=reason))
        self._on_death(process)

    def _lose_server(self) -> None:
        """Note that the fork server has ended, and with it all processes."""
        if self._channel is not None:
            self._selector.unregister(self._channel)
            self._channel.close()
            self._channel = None
        if self._server is not None:
            # It ends when its channel does; then the kernel kills what it forked.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(END_S)
            self._server.kill()
            self._server.wait()
            self._server = None
        while self._pending:
            _refuse(self._pending.popleft(), "the program that starts models' processes has ended")
        # Nobody is left to tell how they ended; the kernel has killed them with the server.
        for pid in tuple(self.processes):
            self._end(
                pid,
                process_death.ProcessDeath(
                    signal.SIGKILL.name, reason="the program that started it has ended"
                ),
            )


def _refuse(launch: _Launch, reason: str) -> None:
    """Have `launch` raise LoadFailed, if it still waits."""
    os.close(launch.log)
    if launch.answer.set_running_or_notify_cancel():
        launch.answer.set_exception(errors.LoadFailed(reason))
