"""Find the columns whose kind of values a tabular model can't take, after it has failed.

Libraries fail in many ways at a text among numbers, and mostly without the column's name. A column
is at fault only if the model answers once the column has values that the model is known to take:
so a fault of the model's own code is not taken for one of the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import numpy as np

from meshserve.runtimes import datatypes

Arrays = Mapping[str, np.ndarray]

COLUMNS_MAX = 8
"""Columns that are tried one by one; each costs a run of the model."""


def find(given: Arrays, known: Arrays, run: Callable[[Arrays], object]) -> list[str]:
    """Return what is wrong with columns [rows] that the model can't take, in words; empty if none.

    `known` has a row that the model takes. `run` raises if the model refuses its columns.
    """
    suspects = {
        name: reason
        for name, array in given.items()
        if name in known and (reason := _describe(array, known[name]))
    }
    # If the model fails even so, the kinds of values are not at fault.
    if not suspects or not _answers(_with_known(given, known, suspects), run):
        return []
    for name in list(suspects)[:COLUMNS_MAX]:
        # The only one that must be replaced, so others may have what kind they have.
        if _answers(_with_known(given, known, [name]), run):
            return [f"column {name!r} {suspects[name]}"]
    return [f"column {name!r} {reason}" for name, reason in suspects.items()]


def _describe(given: np.ndarray, known: np.ndarray) -> str:
    """Return in what the kind of values differs, empty if it does not."""
    is_text = known.dtype.hasobject
    if is_text and given.dtype.hasobject:
        return "has a gap (null), and takes texts" if None in given.tolist() else ""
    if is_text == given.dtype.hasobject:
        return ""
    came = datatypes.datatype_of(given.dtype)
    return f"takes {'texts' if is_text else 'numbers'}, {came} came"


def _with_known(given: Arrays, known: Arrays, names: Container[str]) -> dict[str, np.ndarray]:
    """Return the columns, those of `names` with the first known value in each row."""
    return {
        name: np.repeat(known[name][:1], len(array), axis=0) if name in names else array
        for name, array in given.items()
    }


def _answers(columns: Arrays, run: Callable[[Arrays], object]) -> bool:
    try:
        run(columns)
    except Exception:  # noqa: BLE001 a model may raise anything
        return False
    return True
