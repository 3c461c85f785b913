"""Run a model with made-up inputs, to verify its signature and to warm it up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from meshserve.core.values import model
from meshserve.runtimes import datatypes

ROWS = 3
ELEMENTS_MAX = 1 << 22
"""Made-up inputs with more elements are not tried, because they would take much memory."""
FREE_SIZES = (4, 32, 224, 1024, 16000)
"""Sizes to try, in this order, for free dimensions (-1) other than the first."""

GROWTHS = (1.25, 2)
"""Times of the size that ran, to find the dimensions of outputs that follow those of inputs."""

Arrays = Mapping[str, np.ndarray]

ReturnedT = TypeVar("ReturnedT")

Run = Callable[[Arrays], Arrays]
"""One prediction of all outputs, in wire form."""


class ProbeFailed(Exception):
    """The model refused all made-up inputs; `cause` is what it raised for the last ones."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a model did with made-up inputs.

    `inputs` have one row, and the model takes them. `outputs` are specs of what it returned.
    `is_batchable`: with several rows it returned one row for each, the same as for that row alone.
    """

    inputs: Arrays
    outputs: tuple[model.TensorSpec, ...]
    is_batchable: bool


def probe(run: Run, inputs: Sequence[model.TensorSpec]) -> ProbeResult:
    """Run with one row, with several, and with other sizes where dimensions may have any.

    Raises ProbeFailed if the model refuses all made-up inputs of one row.
    """
    may_have_rows = all(spec.shape[:1] == (-1,) for spec in inputs)
    try:
        size, feeds, first = _find_inputs_that_run(run, inputs)
    except ProbeFailed as failure:
        # Offsets must begin with 0, and edges may only name nodes that came: zeros fit both, but
        # equal rows prove nothing of rows that differ.
        may_have_rows = False
        try:
            size, feeds, first = _find_inputs_that_run(run, inputs, _zero_integers)
        except ProbeFailed:
            raise failure from None
    runs = [first]
    is_batchable = False
    if any(spec.shape[:1] == (-1,) for spec in inputs):
        many = attempt(run, feeds)
        if not isinstance(many, Exception):
            runs.append(many)
            is_batchable = may_have_rows and _has_same_rows(run, feeds, first, many)
    if any(-1 in spec.shape[1:] for spec in inputs):
        others = (
            attempt(run, _first_rows(make_up(inputs, int(size * growth)), inputs))
            for growth in GROWTHS
        )
        runs.append(next((other for other in others if not isinstance(other, Exception)), first))
    return ProbeResult(_first_rows(feeds, inputs), _common_specs(runs), is_batchable)


def make_up(
    inputs: Sequence[model.TensorSpec], free_size: int, rows: int = ROWS
) -> dict[str, np.ndarray]:
    """Return inputs with the specs' datatypes and shapes, the same at every call.

    A first dimension of any size gets `rows`, others of any size `free_size`. Rows differ, and so
    do inputs. Numbers are small, because inputs are often indices.
    """
    return {
        spec.name: _values(spec.datatype, _sized(spec.shape, free_size, rows), position)
        for position, spec in enumerate(inputs)
    }


def _count_elements(inputs: Sequence[model.TensorSpec], free_size: int) -> int:
    return sum(math.prod(_sized(spec.shape, free_size, ROWS)) for spec in inputs)


def _sized(shape: tuple[int, ...], free_size: int, rows: int) -> tuple[int, ...]:
    first = tuple(rows if size < 0 else size for size in shape[:1])
    return first + tuple(free_size if size < 0 else size for size in shape[1:])


def _values(datatype: str, shape: tuple[int, ...], position: int) -> np.ndarray:
    dtype = datatypes.NUMPY_TYPES[datatype]
    steps = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape) + position
    if datatype == "BYTES":
        return np.where(steps % 2, b"b", b"a").astype(np.object_)
    if datatype == "BF16":
        return (_fractions(steps).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return (_fractions(steps) if dtype.kind == "f" else steps % 2).astype(dtype)


def _fractions(steps: np.ndarray) -> np.ndarray:
    return np.asarray(steps * 61 % 97 / 97)


def _first_rows(feeds: Arrays, inputs: Sequence[model.TensorSpec]) -> dict[str, np.ndarray]:
    return {
        spec.name: feeds[spec.name][:1] if spec.shape[:1] == (-1,) else feeds[spec.name]
        for spec in inputs
    }


def _unchanged(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return feeds


def _zero_integers(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name: np.zeros_like(array) if array.dtype.kind in "iu" else array
        for name, array in feeds.items()
    }


def _find_inputs_that_run(
    run: Run,
    inputs: Sequence[model.TensorSpec],
    change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = _unchanged,
) -> tuple[int, dict[str, np.ndarray], Arrays]:
    """Return a free size, inputs of several rows of which the first runs, and its outputs."""
    sizes = FREE_SIZES if any(-1 in spec.shape[1:] for spec in inputs) else FREE_SIZES[:1]
    cause: Exception = AssertionError("no size was tried")
    for size in sizes:
        if size > FREE_SIZES[0] and _count_elements(inputs, size) > ELEMENTS_MAX:
            break
        feeds = change(make_up(inputs, size))
        answer = attempt(run, _first_rows(feeds, inputs))
        if not isinstance(answer, Exception):
            return size, feeds, answer
        cause = answer
    raise ProbeFailed(cause)


def attempt(run: Callable[[Arrays], ReturnedT], given: Arrays) -> ReturnedT | Exception:
    """Return what the model returns for inputs of any shapes, or what it raises."""
    try:
        return run(given)
    except Exception as error:  # noqa: BLE001 a model may raise anything for inputs without a meaning
        return error


def _has_same_rows(run: Run, feeds: Arrays, first: Arrays, many: Arrays) -> bool:
    """Return whether each output has a row for each input row, the same as for that row alone.

    The first row says nothing of a sequence, whose later rows depend on those before them.
    """
    if first.keys() != many.keys():
        return False
    for row in range(ROWS):
        part = {name: array[row : row + 1] for name, array in feeds.items()}
        alone = first if row == 0 else attempt(run, part)
        if isinstance(alone, Exception) or not all(
            many[name].shape[:1] == (ROWS,)
            and array.shape == (1, *many[name].shape[1:])
            and _is_close(array, many[name][row : row + 1])
            for name, array in alone.items()
        ):
            return False
    return True


def _is_close(left: np.ndarray, right: np.ndarray) -> bool:
    if np.array_equal(left, right):
        return True
    # Kernels sum in another order for several rows.
    return left.dtype.kind == "f" and bool(
        np.allclose(left, right, rtol=1e-3, atol=1e-5, equal_nan=True)
    )


def _common_specs(runs: Sequence[Arrays]) -> tuple[model.TensorSpec, ...]:
    """Return specs with the dimensions in which all runs agree, and -1 for the others."""
    return tuple(_common_spec(name, [run[name] for run in runs if name in run]) for name in runs[0])


def _common_spec(name: str, arrays: Sequence[np.ndarray]) -> model.TensorSpec:
    shapes = [array.shape for array in arrays if array.ndim == arrays[0].ndim]
    sizes = zip(*shapes, strict=True)
    return datatypes.spec_for(
        name, arrays[0], tuple(seen[0] if len(set(seen)) == 1 else -1 for seen in sizes)
    )
