"""How many lines a model may write, so that one that prints in a loop fills no disk."""

from __future__ import annotations

from dataclasses import dataclass

LINES_PER_S = 100.0
BURST_LINES = 2000.0
SOURCES_MAX = 1000
"""Sources whose budgets are kept; those that are full again are forgotten first."""


@dataclass(slots=True)
class _Source:
    left: float
    at_s: float
    dropped: int = 0


class LineBudget:
    """A token bucket for each source of lines, such as a model."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}

    def take(self, name: str, now_s: float) -> int:
        """Take one line of the source; return how many were dropped before it, -1 to drop it."""
        source = self._sources.get(name)
        if source is None:
            if len(self._sources) >= SOURCES_MAX:
                self._forget_full(now_s)
            source = self._sources[name] = _Source(BURST_LINES, now_s)
        # The clock of records is the time of day, which may be set back.
        grown = max(0.0, now_s - source.at_s) * LINES_PER_S
        source.left, source.at_s = min(BURST_LINES, source.left + grown), now_s
        if source.left < 1:
            source.dropped += 1
            return -1
        source.left -= 1
        dropped, source.dropped = source.dropped, 0
        return dropped

    def _forget_full(self, now_s: float) -> None:
        full_s = BURST_LINES / LINES_PER_S
        self._sources = {
            name: source
            for name, source in self._sources.items()
            if source.dropped or now_s - source.at_s < full_s
        }
