"""What several tests need: waiting on the world with a bound."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import pytest

from bench import free_ports

PAUSE_S = 0.02
free_port = free_ports.free_port
real_engines = pytest.mark.skipif(
    not os.environ.get("MESHSERVE_TEST_ENGINES"),
    reason="real vLLM takes four minutes, with which all tests together took more than the 15 that they may: MESHSERVE_TEST_ENGINES=1",
)


def wait_until(is_true: Callable[[], object], timeout_s: float = 20.0, what: str = "condition") -> None:
    """Poll until `is_true()` holds; fails the test, naming `what`, when the time is over."""
    end_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end_s, f"not within {timeout_s} s: {what}"
        time.sleep(PAUSE_S)


async def wait_until_async(is_true: Callable[[], object], timeout_s: float = 20.0, what: str = "condition") -> None:
    """The same inside an event loop."""
    end_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end_s, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(PAUSE_S)
