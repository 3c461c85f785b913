"""Bounds of how many parts the JSON of a request has, whatever their size.

A request's tensors are arrays, which are passed on as they are. Its other parts are Python objects:
whoever gets millions of them, or frees them, holds up all other requests for a second and more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from meshserve import errors

BIG_BYTES_MIN = 128 << 10
"""A smaller body has no more parts than can be passed on at once."""

PARTS_MAX = 10_000
"""More than wide tables have columns, with an input for each; made and freed in about 20 ms."""


def check_v2(document: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for too many inputs, outputs or parameters in a V2 request."""
    entries = []
    for key in ("inputs", "outputs"):
        given = document.get(key)
        if isinstance(given, list):
            _check(len(given), key)
            entries += given
    said = [document, *(entry for entry in entries if isinstance(entry, dict))]
    _check(_count(entry.get("parameters") for entry in said), "values in parameters")


def check_v1(instances: Any, columns: Any) -> None:
    """Raise InvalidRequest for too many inputs in the first row, or the columns, of V1."""
    first = instances[0] if instances and isinstance(instances, list) else columns
    if isinstance(first, dict):
        _check(len(first), "inputs")


def _check(count: int, what: str) -> None:
    if count > PARTS_MAX:
        raise errors.InvalidRequest(f"a request has at most {PARTS_MAX} {what}, {count} came")


def _count(values: Iterable[Any]) -> int:
    """Return how many values there are, those in lists and objects too."""
    count, left = 0, [value for value in values if value is not None]
    while left:
        value = left.pop()
        count += 1
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
    return count
