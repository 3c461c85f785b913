"""Find the outputs of a tabular model by rows that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np

from meshserve.core.values import model
from meshserve.runtimes import datatypes, probing, tabular_outputs

Arrays = Mapping[str, np.ndarray]
Call = Callable[[Arrays], object]
"""A function of the model, which takes the arrays of a request."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a model did with some rows: specs of its outputs and where they come from.

    `inputs` are the first row. `has_rows`: each output has one row for each that came.
    """

    inputs: Arrays
    specs: tuple[model.TensorSpec, ...]
    sources: Mapping[str, tabular_outputs.OutputSource]
    has_rows: bool


def try_out(calls: Mapping[str, Call], wanted: AbstractSet[str], trials: Iterable[Arrays]) -> Trial:
    """Call all functions with one row and with several, of the first of `trials` that they take.

    Functions that fail are left out, unless `wanted` or the only ones. Raises ProbeFailed.
    """
    cause: Exception = AssertionError("no rows were tried")
    for many in trials:
        one = {name: array[:1] for name, array in many.items()}
        trial, failure = call_all(calls, one, many)
        if trial:
            kept = {name for name in wanted if name in calls}
            if failure is not None and not kept <= trial.sources.keys():
                raise probing.ProbeFailed(failure)
            return trial
        cause = failure or cause
    raise probing.ProbeFailed(cause)


def call_all(
    calls: Mapping[str, Call], one: Arrays, many: Arrays
) -> tuple[Trial | None, Exception | None]:
    """Return what the functions did with one row and with several, and the last failure of one.

    The trial is None if all failed.
    """
    specs: list[model.TensorSpec] = []
    sources: dict[str, tabular_outputs.OutputSource] = {}
    has_rows, failure = True, None
    for name, call in calls.items():
        try:
            first = call(one)
            rest = _attempt(call, many)
            parts = tabular_outputs.find_sources(name, first, rest)
            for output, source in parts.items():
                # A column of a frame may have the name of another function's output.
                unique = output if output not in sources else f"{name}_{output}"
                alone = tabular_outputs.extract(source, first)
                joined = None if rest is None else tabular_outputs.extract(source, rest)
                specs.append(_common_spec(unique, alone, joined))
                sources[unique] = source
                has_rows &= joined is not None and _has_rows(alone, joined, many)
        except Exception as error:  # noqa: BLE001 a model may raise anything for made-up values
            failure = error
    return (Trial(one, tuple(specs), sources, has_rows) if sources else None), failure


def _attempt(call: Call, many: Arrays) -> object | None:
    rest = probing.attempt(call, many)
    # A model may take one row only.
    return None if isinstance(rest, Exception) else rest


def _common_spec(name: str, one: np.ndarray, many: np.ndarray | None) -> model.TensorSpec:
    if many is None or many.ndim != one.ndim:
        return datatypes.spec_for(name, one)
    sizes = zip(one.shape, many.shape, strict=True)
    return datatypes.spec_for(name, one, tuple(a if a == b else -1 for a, b in sizes))


def _has_rows(one: np.ndarray, many: np.ndarray, inputs: Arrays) -> bool:
    rows = len(next(iter(inputs.values())))
    is_each = one.shape[:1] == (1,) and many.shape[:1] == (rows,)
    # One row shows nothing of several.
    return rows > 1 and is_each and one.shape[1:] == many.shape[1:]


def fill(made_up: Arrays, samples: Mapping[int, Sequence[Any]], *, is_matrix: bool) -> Arrays:
    """Put values that columns are known to take, such as categories, in place of made-up ones.

    `samples` are by the column's position, in one matrix or as arrays of their own. The arrays keep
    their shapes and datatypes.
    """
    arrays = list(made_up.values())
    for place, values in samples.items():
        cells = [values[row % len(values)] for row in range(probing.ROWS)]
        column = arrays[0][:, place] if is_matrix else arrays[place]
        column[:] = [
            cell.encode(errors="surrogateescape")
            if isinstance(cell, str) and column.dtype.hasobject
            else cell
            for cell in cells
        ]
    return made_up
