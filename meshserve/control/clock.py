"""Real time."""

from __future__ import annotations

import asyncio
import time


class RealClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return when so much time has gone by."""
        await asyncio.sleep(seconds)
