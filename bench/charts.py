"""Draw bar charts as plain SVG, without a library, for white and for dark pages."""

from __future__ import annotations

import math
from html import escape

from bench import results

WIDTH, LABEL_WIDTH, VALUE_WIDTH = 780, 280, 90
TOP, BAR_HEIGHT, STEP, BOTTOM = 46, 18, 28, 14
LENGTH_MIN = 3.0
FONT = '13px -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif'
STYLE = f"""
text {{ font: {FONT}; fill: #424a53; }}
.title {{ font-size: 15px; font-weight: 600; fill: #1f2328; }}
.note {{ font-size: 12px; font-weight: 400; fill: #59636e; }}
.value {{ font-variant-numeric: tabular-nums; }}
.ours {{ fill: #1f6feb; }} .theirs {{ fill: #b1bac4; }} .axis {{ stroke: #b1bac4; }}
.name-ours {{ font-weight: 600; fill: #1f2328; }}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #c9d1d9; }} .title, .name-ours {{ fill: #f0f6fc; }} .note {{ fill: #9198a1; }}
  .ours {{ fill: #4493f8; }} .theirs {{ fill: #59636e; }} .axis {{ stroke: #59636e; }}
}}
"""


def svg(chart: results.Chart) -> str:
    """Return the text of the chart's file."""
    height = TOP + STEP * len(chart.bars) + BOTTOM
    note = f"{chart.unit}, logarithmic" if chart.is_log else chart.unit
    lengths = _lengths(chart)
    bars = "\n".join(
        _bar(bar, TOP + STEP * place, lengths[place]) for place, bar in enumerate(chart.bars)
    )
    spoken = escape(
        f"{chart.title}: "
        + ", ".join(f"{bar.label} {results.figure(bar.value)} {chart.unit}" for bar in chart.bars),
        quote=True,
    )
    bottom = TOP + STEP * len(chart.bars) - (STEP - BAR_HEIGHT) + 4
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    title = f'{escape(chart.title)} <tspan class="note">({escape(note)})</tspan>'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">
<title>{spoken}</title>
<style>{STYLE}</style>
<text class="title" x="0" y="18">{title}</text>
<line class="axis" x1="{LABEL_WIDTH}" y1="{TOP - 4}" x2="{LABEL_WIDTH}" y2="{bottom}"/>
{bars}
</svg>
"""


def _bar(bar: results.Bar, top: int, length: float) -> str:
    kind, baseline = ("ours" if bar.is_ours else "theirs"), top + BAR_HEIGHT - 5
    place = f'x="{LABEL_WIDTH - 10}" y="{baseline}" text-anchor="end"'
    name = f'<text class="name-{kind}" {place}>{escape(bar.label)}</text>'
    box = f'x="{LABEL_WIDTH}" y="{top}" width="{length:.1f}" height="{BAR_HEIGHT}" rx="2"'
    rectangle = f'<rect class="{kind}" {box}/>'
    place = f'x="{LABEL_WIDTH + length + 8:.1f}" y="{baseline}"'
    value = f'<text class="value" {place}>{results.figure(bar.value)}</text>'
    return f"{name}\n{rectangle}\n{value}"


def _lengths(chart: results.Chart) -> list[float]:
    """Return each bar's length; the longest fills its space.

    A logarithmic scale begins at half of the smallest value.
    """
    room, values = WIDTH - LABEL_WIDTH - VALUE_WIDTH, [bar.value for bar in chart.bars]
    most = max(values, default=0.0)
    if most <= 0:
        return [LENGTH_MIN] * len(values)
    if not chart.is_log:
        return [max(LENGTH_MIN, value / most * room) for value in values]
    least = min(value for value in values if value > 0) / 2
    span = math.log(most / least)
    return [
        max(LENGTH_MIN, math.log(value / least) / span * room) if value > 0 else LENGTH_MIN
        for value in values
    ]
