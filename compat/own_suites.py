"""Runs of the peers' own suites, unchanged but for addresses. They are made by hand."""

from __future__ import annotations

RUNS: dict[tuple[str, str], str] = {}
"""What a suite gave, by the peer and kind of the row that it belongs to."""
