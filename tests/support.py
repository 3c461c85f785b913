"""Helpers of several tests: waiting for a condition, with a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from bench import free_ports

PAUSE_S = 0.02
# Less than pytest's own limit for a test without a mark, which would end a wait without its words.
WAIT_S = 40.0
free_port = free_ports.free_port


def wait_until(
    is_true: Callable[[], object], timeout_s: float = WAIT_S, what: str = "condition"
) -> None:
    """Poll until `is_true()` holds. Fail the test, naming `what`, when the time is over."""
    end_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end_s, f"not within {timeout_s} s: {what}"
        time.sleep(PAUSE_S)


async def wait_until_async(
    is_true: Callable[[], object], timeout_s: float = WAIT_S, what: str = "condition"
) -> None:
    """Do the same inside an event loop."""
    end_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end_s, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(PAUSE_S)


class Unspeakable(Exception):
    """An error of a model's own whose message raises when it is read."""

    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__
