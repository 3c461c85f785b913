"""The lock on a state directory: one process at a time runs the mesh whose state it is."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from meshserve import errors

NAME = "mesh.lock"


@contextlib.contextmanager
def held(state_dir: Path) -> Iterator[None]:
    """Make the directory if it is missing, private to its user, and hold its lock meanwhile.

    The kernel ends the lock with the process, however that ends. Raises Unavailable if another
    process holds it, ConfigInvalid if the directory can't be written to.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        # It may have been made with another mask, by the shell or by an earlier version.
        state_dir.chmod(0o700)
        descriptor = os.open(state_dir / NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise errors.ConfigInvalid(
            f"state_dir: {state_dir} can't be written to ({error.strerror}); name another folder, "
            "or set MESHSERVE_HOME"
        ) from None
    try:
        _lock(descriptor, state_dir)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, state_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(state_dir, _read_pid(descriptor)) from None


def refuse_if_held(state_dir: Path) -> None:
    """Raise Unavailable if a process holds the lock."""
    pid = find_holder(state_dir)
    if pid is not None:
        raise _taken(state_dir, pid)


def find_holder(state_dir: Path) -> int | None:
    """Return the id of the process that holds the lock, None if no process does."""
    try:
        descriptor = os.open(state_dir / NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(descriptor)
    finally:
        os.close(descriptor)
    return None


def _read_pid(descriptor: int) -> int:
    """Return the number in the file; 0 if the holder has not written it yet."""
    return int(os.pread(descriptor, 20, 0) or b"0")


def _taken(state_dir: Path, pid: int) -> errors.Unavailable:
    return errors.Unavailable(
        f"process {pid} runs a mesh with the state directory {state_dir}: it is starting, or does "
        f"not answer; wait for it, end it with `MESHSERVE_HOME={state_dir} meshserve down`, "
        "or name another `state_dir`"
    )
