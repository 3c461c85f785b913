"""What keeps a Ray cluster of our own to this user: a token, and no address but the loopback's."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

TOKEN_BYTES = 32
TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 - a name


@contextlib.contextmanager
def private_start(token_path: Path) -> Iterator[None]:
    """Have a cluster that starts meanwhile ask for a new token, and listen on 127.0.0.1 alone.

    The token is written to `token_path`. Nobody else's is used or changed: neither
    `~/.ray/auth_token` nor one of the environment, which is for other clusters.
    """
    _write_token(token_path)
    variables = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
    }
    before = dict(os.environ)
    is_cluster = ray_constants.ENABLE_RAY_CLUSTER
    os.environ.pop(TOKEN, None)
    os.environ.update(variables)
    # Private API, Ray's own way for Windows and macOS: it otherwise replaces 127.0.0.1 by the
    # address of the network, and listens on all addresses.
    ray_constants.ENABLE_RAY_CLUSTER = False
    # Ray has read the environment already, when it was imported.
    _read_environment()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = is_cluster
        # The processes of the cluster have got the variables. Other programs that this one starts
        # may use other clusters.
        for name in (TOKEN, *variables):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _read_environment() -> None:
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _write_token(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of an earlier cluster of this process.
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(TOKEN_BYTES))
