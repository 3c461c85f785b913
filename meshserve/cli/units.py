"""Numbers in the form that people read."""

from __future__ import annotations

# Binary units, as sizes are written in config.yaml's defaults.
SIZES = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
COUNTS = (("G", 10**9), ("M", 10**6))
MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86400
THREE_DIGITS = 100
TWO_DIGITS = 10


def size(size_bytes: float) -> str:
    """Return bytes as `312 MiB`, `1.5 GiB` or `0 B`, with three digits at most."""
    for unit, factor in SIZES:
        if size_bytes >= factor:
            return f"{_digits(size_bytes / factor)} {unit}"
    return f"{size_bytes:.0f} B"


def count(number: float) -> str:
    """Return a number as `12,345` or `1.2 M`."""
    for unit, factor in COUNTS:
        if number >= factor:
            return f"{_digits(number / factor)} {unit}"
    return f"{number:,.0f}"


def rate(per_s: float) -> str:
    """Return a number per second as `0`, `0.4`, `12` or `1,234`."""
    return f"{per_s:.1f}" if 0 < per_s < TWO_DIGITS else f"{per_s:,.0f}"


def duration(time_s: float) -> str:
    """Return seconds as `0.41 ms`, `3.2 s`, `4m 05s`, `3h 12m` or `2d 4h`."""
    if time_s < 1:
        return f"{_digits(time_s * 1000)} ms"
    if time_s < MINUTE_S:
        return f"{_digits(time_s)} s"
    if time_s < HOUR_S:
        return f"{time_s // MINUTE_S:.0f}m {time_s % MINUTE_S:02.0f}s"
    if time_s < DAY_S:
        return f"{time_s // HOUR_S:.0f}h {time_s % HOUR_S // MINUTE_S:02.0f}m"
    return f"{time_s // DAY_S:.0f}d {time_s % DAY_S // HOUR_S:.0f}h"


def share(part: float, whole: float) -> str:
    """Return a part as `99.9 %` of a whole, or a dash if the whole is 0.

    A part that is not the whole is at most `99.9 %`: it is never rounded up to `100 %`.
    """
    if not whole:
        return "–"
    percent = 100 * part / whole
    if percent >= THREE_DIGITS:
        return "100 %"
    return f"{min(percent, 99.9):.1f} %"


def number(count: int, noun: str) -> str:
    """Return a count with its noun: `1 model`, `6 models`, `2 repositories`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def _digits(number: float) -> str:
    if number >= THREE_DIGITS:
        return f"{number:.0f}"
    text = f"{number:.1f}" if number >= TWO_DIGITS else f"{number:.2f}"
    return text.rstrip("0").rstrip(".")
