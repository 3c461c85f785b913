"""What a model does with made-up inputs: the check that its signature is true, and its warm-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meshserve.core.values import model
from meshserve.runtimes import datatypes

ROWS = 3
FREE_SIZES = (4, 32, 224)
"""Sizes tried, in this order, for dimensions other than the first that may have any."""

OTHER_SIZES = (5, 64)
"""Then these, to see which dimensions of the outputs follow."""

Given = Mapping[str, np.ndarray]

Run = Callable[[Mapping[str, np.ndarray]], Given]
"""One prediction of all outputs, in wire form."""


class ProbeFailed(Exception):
    """The model did not take any made-up inputs; `cause` is what it raised for the last ones."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Probed:
    """What a model gave: `inputs` of one row that it takes, `outputs` as found, and whether it treats the first dimension as a batch."""

    inputs: Mapping[str, np.ndarray]
    outputs: tuple[model.TensorSpec, ...]
    is_batchable: bool


def explore(run: Run, inputs: Sequence[model.TensorSpec]) -> Probed:
    """Run with one row and with several, and with another size where other dimensions are free. Raises ProbeFailed."""
    feeds, given = _first_that_runs(run, inputs)
    runs = [given]
    has_rows = bool(inputs) and all(spec.shape[:1] == (-1,) for spec in inputs)
    is_batchable = False
    if any(spec.shape[:1] == (-1,) for spec in inputs):
        many = _attempt(run, feeds)
        if not isinstance(many, Exception):
            runs.append(many)
            is_batchable = has_rows and _follows(given, many)
    if any(-1 in spec.shape[1:] for spec in inputs):
        others = (_attempt(run, _one_row(made_up(inputs, size), inputs)) for size in OTHER_SIZES)
        runs.append(next((other for other in others if not isinstance(other, Exception)), given))
    return Probed(_one_row(feeds, inputs), _common_specs(runs), is_batchable)


def made_up(
    inputs: Sequence[model.TensorSpec], free_size: int, rows: int = ROWS
) -> dict[str, np.ndarray]:
    """Inputs that fit: rows differ, numbers are small, and the same at every call."""
    return {
        spec.name: _values(spec.datatype, _sized(spec.shape, free_size, rows)) for spec in inputs
    }


def _sized(shape: tuple[int, ...], free_size: int, rows: int) -> tuple[int, ...]:
    first = tuple(rows if size < 0 else size for size in shape[:1])
    return first + tuple(free_size if size < 0 else size for size in shape[1:])


def _values(datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    dtype = datatypes.NUMPY_TYPES[datatype]
    steps = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    if datatype == "BYTES":
        return np.where(steps % 2, b"b", b"a").astype(np.object_)
    if datatype == "BF16":
        return (_fractions(steps).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return (_fractions(steps) if dtype.kind == "f" else steps % 2).astype(dtype)


def _fractions(steps: np.ndarray) -> np.ndarray:
    return np.asarray(steps * 61 % 97 / 97)


def _one_row(
    feeds: Mapping[str, np.ndarray], inputs: Sequence[model.TensorSpec]
) -> dict[str, np.ndarray]:
    return {
        spec.name: feeds[spec.name][:1] if spec.shape[:1] == (-1,) else feeds[spec.name]
        for spec in inputs
    }


def _first_that_runs(
    run: Run, inputs: Sequence[model.TensorSpec]
) -> tuple[dict[str, np.ndarray], Given]:
    sizes = FREE_SIZES if any(-1 in spec.shape[1:] for spec in inputs) else FREE_SIZES[:1]
    cause = None
    for size in sizes:
        feeds = made_up(inputs, size)
        given = _attempt(run, _one_row(feeds, inputs))
        if not isinstance(given, Exception):
            return feeds, given
        cause = given
    raise ProbeFailed(cause or ValueError("there was no size to try"))


def _attempt(run: Run, feeds: Mapping[str, np.ndarray]) -> Given | Exception:
    try:
        return run(feeds)
    except Exception as error:  # noqa: BLE001 a model's code may raise anything for inputs that nobody meant
        return error


def _follows(one: Mapping[str, np.ndarray], many: Mapping[str, np.ndarray]) -> bool:
    """Whether each output has a row for each row, and the first row's is what it was alone."""
    return one.keys() == many.keys() and all(
        array.shape[:1] == (1,)
        and many[name].shape == (ROWS, *array.shape[1:])
        and _is_close(array, many[name][:1])
        for name, array in one.items()
    )


def _is_close(left: np.ndarray, right: np.ndarray) -> bool:
    if np.array_equal(left, right):
        return True
    return left.dtype.kind == "f" and bool(
        np.allclose(left, right, rtol=1e-3, atol=1e-5, equal_nan=True)
    )


def _common_specs(runs: Sequence[Mapping[str, np.ndarray]]) -> tuple[model.TensorSpec, ...]:
    """Outputs with the dimensions in which all runs agree; the others may have any size."""
    return tuple(_common_spec(name, [run[name] for run in runs if name in run]) for name in runs[0])


def _common_spec(name: str, arrays: Sequence[np.ndarray]) -> model.TensorSpec:
    shapes = [array.shape for array in arrays if array.ndim == arrays[0].ndim]
    sizes = zip(*shapes, strict=True)
    return datatypes.spec_of(
        name, arrays[0], tuple(seen[0] if len(set(seen)) == 1 else -1 for seen in sizes)
    )
