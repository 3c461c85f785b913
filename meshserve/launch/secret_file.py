"""The file with the mesh's secret, in the state directory."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

NAME = "mesh.secret"
BYTES = 32


def get_secret(state_dir: Path) -> str:
    """Return the secret of the mesh with this state directory, made at its first start.

    The caller holds the directory's lock. Raises OSError if the file can't be written.
    """
    path = state_dir / NAME
    secret = path.read_text() if _is_private(path) else ""
    if len(secret) < BYTES:
        secret = secrets.token_urlsafe(BYTES)
        _write(path, secret)
    return secret


def _is_private(path: Path) -> bool:
    # One that others could read may be known to them.
    return path.is_file() and not path.stat().st_mode & 0o077


def _write(path: Path, secret: str) -> None:
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    # With its mode from the beginning, whatever the mask is: it must never be readable.
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
    unfinished.replace(path)
