"""Codes of categorical features: the values of a training frame, by the numbers trees know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from meshserve import errors

SHOWN_MAX = 5
"""Categories that an error lists."""


class CategoryCodes:
    """The categories of one column in the order of their codes, which count from 0.

    `is_strict`: the library refuses values outside the categories; else they are missing values.
    `find_code` returns the code of a text, where the library's file does not tell all its texts,
    and `example` is one that has a code. The default is the first value; without values, None.
    """

    __slots__ = ("_codes", "_find_code", "column", "example", "is_strict", "values")

    def __init__(
        self,
        column: str,
        values: Sequence[str | float | bool],
        *,
        is_strict: bool = False,
        find_code: Callable[[str], int | None] | None = None,
        example: str | None = None,
    ) -> None:
        self.column = column
        self.values = tuple(values)
        self.is_strict = is_strict
        self.example = next(iter(self.values), None) if example is None else example
        # Equal numbers of all types are one key, so 1, 1.0 and True have one code.
        self._codes: dict[Any, int] = {value: code for code, value in enumerate(self.values)}
        self._find_code: Callable[[Any], int | None] = find_code or self._codes.get

    @property
    def is_text(self) -> bool:
        """Whether the categories are texts."""
        return any(isinstance(value, str) for value in self.values)

    def encode(self, cells: np.ndarray) -> np.ndarray:
        """Return the codes of an array [rows] as FP64; NaN for gaps and unknown values.

        Raises InvalidRequest for values of another type than the categories', and for unknown ones
        if `is_strict`.
        """
        # Bytes that are not UTF-8 are an unknown category, and must not raise another error.
        items = [
            item.decode(errors="surrogateescape") if isinstance(item, bytes) else item
            for item in cells.tolist()
        ]
        codes = [self._find_code(item) for item in items]
        encoded = np.array([np.nan if code is None else code for code in codes], np.float64)
        for place in np.flatnonzero(np.isnan(encoded)).tolist():
            self._check_unknown(items[place])
        return encoded

    def refuse_unlisted(self, items: Sequence[object]) -> None:
        """Raise InvalidRequest for what a frame with these categories would take for a gap."""
        for item in items:
            if item not in self._codes:
                self._check_unknown(item)

    def _check_unknown(self, value: object) -> None:
        if value is None or value != value:  # noqa: PLR0124 NaN alone is unlike itself
            return
        if isinstance(value, str) != self.is_text or self.is_strict:
            shown = ", ".join(repr(known) for known in self.values[:SHOWN_MAX])
            more = ", …" if len(self.values) > SHOWN_MAX else ""
            raise errors.InvalidRequest(
                f"column {self.column!r} takes its categories ({shown}{more}), not {value!r}"
            )


def encode_matrix(rows: np.ndarray, codes: Mapping[int, CategoryCodes]) -> np.ndarray:
    """Return rows [rows, columns] with codes in the columns of `codes`, by position."""
    if not codes:
        return rows
    encoded = rows.astype(np.float64)
    for place, column in codes.items():
        encoded[:, place] = column.encode(rows[:, place])
    return encoded


def encode_columns(
    columns: Sequence[np.ndarray], names: Sequence[str], codes: Mapping[int, CategoryCodes]
) -> np.ndarray:
    """Return columns of shape [rows] as one FP64 matrix, with codes where there are categories.

    Raises InvalidRequest for texts in other columns.
    """
    arrays = []
    for place, cells in enumerate(columns):
        if place in codes:
            arrays.append(codes[place].encode(cells))
            continue
        if cells.dtype.hasobject:
            raise errors.InvalidRequest(f"column {names[place]!r} takes numbers, texts came")
        arrays.append(cells.astype(np.float64))
    return np.stack(arrays, axis=1)
