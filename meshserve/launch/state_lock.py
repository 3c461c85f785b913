"""The lock on a state directory: one process at a time runs the mesh whose state it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from meshserve import errors
from meshserve.storage import file_lock

NAME = "mesh.lock"

_held_here: set[str] = set()
"""The real paths that this process holds: the kernel tells only of other processes' locks."""


@contextlib.contextmanager
def held(state_dir: Path) -> Iterator[None]:
    """Make the directory if it is missing, private to its user, and hold its lock meanwhile.

    The kernel ends the lock with the process, however that ends. Raises Unavailable if a process
    holds it, ConfigInvalid if the directory can't be written to.
    """
    descriptor = _open(state_dir)
    path = os.path.realpath(state_dir)
    try:
        try:
            file_lock.take(descriptor)
        except OSError:
            raise _taken(state_dir, file_lock.find_holder(descriptor) or 0) from None
        _held_here.add(path)
        yield
    finally:
        _held_here.discard(path)
        os.close(descriptor)


def _open(state_dir: Path) -> int:
    """Return a descriptor of the lock's file. Raises as `held` does."""
    # A second descriptor of the file would end this process's lock when it is closed.
    if os.path.realpath(state_dir) in _held_here:
        raise _taken(state_dir, os.getpid())
    with telling_the_folder(state_dir):
        state_dir.mkdir(parents=True, exist_ok=True)
        # It may have been made with another mask, by the shell or by an earlier version.
        state_dir.chmod(0o700)
        return os.open(state_dir / NAME, os.O_RDWR | os.O_CREAT, 0o600)


@contextlib.contextmanager
def telling_the_folder(state_dir: Path) -> Iterator[None]:
    """Raise ConfigInvalid for an OSError of the block, which writes to the state directory."""
    try:
        yield
    except OSError as error:
        raise errors.ConfigInvalid(
            f"state_dir: {state_dir} can't be written to ({error.strerror}); name another folder, "
            "or set MESHSERVE_HOME"
        ) from None


def refuse_if_held(state_dir: Path) -> None:
    """Raise Unavailable if a process holds the lock."""
    pid = find_holder(state_dir)
    if pid is not None:
        raise _taken(state_dir, pid)


def find_holder(state_dir: Path) -> int | None:
    """Return the id of the process that holds the lock, None if no process does.

    It is 0 or less for a process that has no id here: it runs in another container or machine.
    """
    if os.path.realpath(state_dir) in _held_here:
        return os.getpid()
    try:
        descriptor = os.open(state_dir / NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        return file_lock.find_holder(descriptor)
    finally:
        os.close(descriptor)


def _taken(state_dir: Path, pid: int) -> errors.Unavailable:
    holder = f"process {pid}" if pid > 0 else "a process of another container or machine"
    return errors.Unavailable(
        f"{holder} runs a mesh with the state directory {state_dir}: it is starting, or does "
        f"not answer; wait for it, end it with `MESHSERVE_HOME={state_dir} meshserve down`, "
        "or name another `state_dir`"
    )
