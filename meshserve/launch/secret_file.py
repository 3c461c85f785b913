"""The secrets of a mesh, in files of its state directory that its user alone can read.

The mesh's secret opens the sockets between its nodes, and is made at its first start. The owner's
key is sent by commands on the mesh's machine, which may then name any local file as a model. Each
start writes a new one, so that a program which took an ended mesh's port learns nothing of use.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

NAME = "mesh.secret"
OWNER_NAME = "owner.key"
BYTES = 32


def get_secret(state_dir: Path) -> str:
    """Return the secret of the mesh with this state directory, made at its first start.

    The caller holds the directory's lock. Raises OSError if the file can't be written.
    """
    path = state_dir / NAME
    secret = path.read_text() if _is_private(path) else ""
    return secret if len(secret) >= BYTES else _write_new(path)


def create_owner_key(state_dir: Path) -> str:
    """Write a new key of the mesh's owner and return it.

    The caller holds the directory's lock. Raises OSError if the file can't be written.
    """
    return _write_new(state_dir / OWNER_NAME)


def read_owner_key(state_dir: Path) -> str:
    """Return the owner's key of the mesh with this state directory; empty if it can't be read."""
    try:
        return (state_dir / OWNER_NAME).read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def remove_owner_key(state_dir: Path) -> None:
    """Remove the owner's key, if there is one."""
    (state_dir / OWNER_NAME).unlink(missing_ok=True)


def _is_private(path: Path) -> bool:
    # One that others could read may be known to them.
    return path.is_file() and not path.stat().st_mode & 0o077


def _write_new(path: Path) -> str:
    secret = secrets.token_urlsafe(BYTES)
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    # With its mode from the beginning, whatever the mask is: it must never be readable.
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
    unfinished.replace(path)
    return secret
