"""Who makes the management call that is being answered."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

_name: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="")


def name() -> str:
    """Return the name of the API key of the call in progress, "" outside of one or without keys."""
    return _name.get()


@contextlib.contextmanager
def named(client: str) -> Iterator[None]:
    """Let `name` return this name inside the block, in this task and in those that it starts."""
    token = _name.set(client)
    try:
        yield
    finally:
        _name.reset(token)
