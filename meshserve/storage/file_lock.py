"""POSIX locks on whole files: the kernel tells who holds one, and ends it with the process.

A lock belongs to a process and a file (fcntl(2)): it ends when the process closes any descriptor of
that file. The holder must open the file once only. Children of a fork don't inherit it.
"""

from __future__ import annotations

import fcntl
import os
import struct

# `struct flock` of 64-bit Linux: type, origin, start, length, pid (man 2 fcntl).
_FLOCK = struct.Struct("hhqqi4x")
# A write lock conflicts with every other, and a length of 0 means the whole file.
_ANY_HOLDER = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def take(descriptor: int) -> None:
    """Lock the file, which is open for writing. Raises OSError if another process has done so."""
    # Despite its name a lock of fcntl(2): one of flock(2) would live on in a forked child.
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def find_holder(descriptor: int) -> int | None:
    """Return the id of another process that holds the lock, or None.

    It is 0 or less for a process that has no id here: it runs in another container or machine.
    """
    answer = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, _ANY_HOLDER))
    return None if answer[0] == fcntl.F_UNLCK else int(answer[4])
