"""One model's process, as its worker sees it: calls, its memory and its death."""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from meshserve import errors
from meshserve.core.values import process_death
from meshserve.worker.models import call_fields, process_memory, tensor_frames

DEATH_TOLD_S = 30.0
"""How long after the end of a connection the process's death is waited for.

It is told at once, unless the fork server is importing a library.
"""

CLOSE_S = 5.0
"""How long a model may take to close before its process is killed."""

MESSAGE = b"c"


class NotRun(errors.ModelDied):
    """The process had died before the call reached it, so another process may answer it."""


class IsolatedProcess:
    """A process that runs one model. Threads may call it side by side.

    `key` is that of the copy and `death` is None while it lives. `stopped_for` is why it was killed
    from here, empty if it was not. `mapped_bytes` are those of files that its model has mapped,
    and `footprint_bytes` what it took after its load, library included; 0 until then.
    """

    def __init__(
        self,
        key: str,
        control: socket.socket,
        connection: socket.socket,
        kill: Callable[[IsolatedProcess], None],
    ) -> None:
        """`kill` orders that the process is killed, if it still lives then."""
        self.key = key
        self.pid = 0
        self.death: process_death.ProcessDeath | None = None
        self.stopped_for = ""
        self.mapped_bytes = 0
        self.footprint_bytes = 0
        self._kill = kill
        self._control = control
        # Threads share it without a lock: taking from and appending to a list are atomic.
        self._idle = [connection]
        self._busy: set[socket.socket] = set()
        self._is_dead = threading.Event()
        self._shared_bytes = 0
        # A closing worker cuts loads and ends short, and closes nothing then. Not `__del__`: of a
        # cycle the garbage collector may take the sockets first, and warns of them.
        weakref.finalize(self, _close, control, self._idle).atexit = False

    def call(
        self,
        fields: Mapping[str, object],
        arrays: Mapping[str, np.ndarray] | None = None,
        timeout_s: float | None = None,
    ) -> tensor_frames.Frame:
        """Return the answer to a call; arrays have any shape.

        A call that takes longer than `timeout_s` ends the process: nothing else stops a thread.
        Raises what the model's code raised as a MeshError or _Raised, DeadlineExceeded, and
        ModelDied if the process is dead or dies meanwhile.
        """
        connection = self._take_connection()
        # An answer that breaks off leaves its rest in the connection, for the next call to read.
        is_sound = False
        try:
            # Each time, because the call before may have set another one.
            connection.settimeout(timeout_s)
            tensor_frames.send(connection, fields, arrays, may_pickle=True)
            frame = tensor_frames.receive(connection)
            is_sound = True
        except TimeoutError:
            self.stop(f"a call took longer than {timeout_s:g} s")
            self._is_dead.wait(DEATH_TOLD_S)
            raise errors.DeadlineExceeded(
                f"the model has not answered within {timeout_s:g} s; its process was stopped"
            ) from None
        except tensor_frames.BadFrame as error:
            self.stop(f"it sent what is no answer: {error}")
            raise self._died() from None
        except (OSError, EOFError):
            raise self._died() from None
        finally:
            self._give_back(connection, is_sound=is_sound)
        call_fields.raise_error(frame.fields)
        return frame

    def _take_connection(self) -> socket.socket:
        """Return an idle connection or a new one. Raises ModelDied if the process is gone."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection, other_end = socket.socketpair()
            try:
                with other_end:
                    socket.send_fds(self._control, [MESSAGE], [other_end.fileno()])
            except OSError:
                connection.close()
                raise NotRun(self._died().message) from None
        self._busy.add(connection)
        if self.death is not None:  # after the line above, or the death would not reach it
            self._give_back(connection, is_sound=False)
            raise NotRun(str(self.death))
        return connection

    def _give_back(self, connection: socket.socket, *, is_sound: bool) -> None:
        """Keep a connection for the next call, or close it: only the thread that used it may."""
        self._busy.discard(connection)
        if is_sound and self.death is None:
            self._idle.append(connection)
        else:
            connection.close()

    def _died(self) -> errors.ModelDied:
        """Return the error for a caller, once it is known how the process ended."""
        if not self._is_dead.wait(DEATH_TOLD_S):
            self.stop("it closed its connection")
            self._is_dead.wait(DEATH_TOLD_S)
        return errors.ModelDied(str(self.death or "the model's process is gone"))

    # Its end

    def record_death(self, death: process_death.ProcessDeath) -> None:
        """Note that the process has ended, and end all calls that wait for it."""
        # Before the event, after which waiting callers read it.
        self.death = death
        self._is_dead.set()
        # A process that the model has started may keep its end of a connection open.
        for connection in tuple(self._busy):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def stop(self, reason: str) -> None:
        """Kill the process because of `reason`, if it still lives."""
        if self.death is None and not self.stopped_for:
            self.stopped_for = reason
            self._kill(self)

    def end(self) -> None:
        """Let the model close, then end the process; kill it if that takes longer than CLOSE_S.

        Raises ModelRaised for what the model raises while it closes.
        """
        try:
            if self.death is None and not self.stopped_for:
                self.call({"call": "close"}, timeout_s=CLOSE_S)
        except (errors.ModelDied, errors.DeadlineExceeded):
            pass
        finally:
            if not self._is_dead.wait(CLOSE_S):
                self.stop("it did not end")
                self._is_dead.wait(DEATH_TOLD_S)
            self.close()

    def close(self) -> None:
        """Close the connections that no call uses; those in use end with the process."""
        _close(self._control, self._idle)

    def discard(self, reason: str) -> None:
        """Kill the process because of `reason`, and wait for its end."""
        self.stop(reason)
        self.end()

    # Its memory

    def measure_footprint(self) -> int:
        """Return the bytes that the loaded model takes, mapped files included.

        Memory that it shares with the fork server is counted there. Raises ModelDied if the process
        has ended.
        """
        try:
            own_bytes = _unshared_bytes(self.pid)
            self._shared_bytes = max(0, process_memory.private_bytes(self.pid) - own_bytes)
        except OSError:
            # It may have ended after its load. Told as a death, this convicts a suspect.
            if self._is_dead.wait(CLOSE_S):
                raise errors.ModelDied(str(self.death)) from None
            raise
        self.footprint_bytes = own_bytes + self.mapped_bytes
        return self.footprint_bytes

    def memory_bytes(self) -> int:
        """Return the bytes that the process takes now; 0 once it is dead."""
        try:
            resident_bytes = process_memory.private_bytes(self.pid)
        except (OSError, ValueError):
            return 0
        return max(0, resident_bytes - self._shared_bytes) + self.mapped_bytes


def _close(control: socket.socket, idle: list[socket.socket]) -> None:
    control.close()
    while idle:
        idle.pop().close()


def _unshared_bytes(pid: int) -> int:
    """Return the memory that only this process has written (Private_Dirty in proc(5))."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
        name, _, rest = line.partition(":")
        if name == "Private_Dirty":
            return int(rest.split()[0]) << 10
    raise AssertionError("the kernel does not tell Private_Dirty")
