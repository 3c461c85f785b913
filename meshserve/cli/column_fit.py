"""How wide the cells of a table are in a terminal, and which columns fit beside each other."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.text import Text

GAP = 3
"""The width between two columns of a table with the box SIMPLE_HEAD, in terminal columns."""

# A console for measuring cells; nothing is printed on it.
MEASURE = Console(width=1000, file=io.StringIO())


def fitting(dropped: Sequence[int], widths: Sequence[int], width: int) -> list[int]:
    """Return the indices of the columns that fit, without those that are `dropped` first.

    Columns with the biggest `dropped` are left out first, those with 0 never.
    """
    shown = list(range(len(dropped)))
    # Of columns with the same `dropped` the rightmost is left out first.
    for index in sorted(shown, key=lambda index: (-dropped[index], -index)):
        if dropped[index] and sum(widths[other] + GAP for other in shown) - GAP > width:
            shown.remove(index)
    return shown


def as_text(cell: RenderableType) -> RenderableType:
    """Return the cell so that rich takes no markup in it, as `churn[beta]` would have."""
    return Text(cell) if isinstance(cell, str) else cell


def cell_width(cell: RenderableType) -> int:
    """Return how many columns of the terminal a cell takes."""
    return Measurement.get(MEASURE, MEASURE.options, cell).maximum
