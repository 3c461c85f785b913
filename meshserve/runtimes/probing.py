"""Run a model with made-up inputs, to verify its signature and to warm it up."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from meshserve.core.values import model
from meshserve.runtimes import datatypes, made_up_values

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

    `inputs` have one row, unless the model takes no single one. `outputs` are specs of what it
    returned. `is_batchable`: with several rows it returned one row for each, the same as for that
    row alone.
    """

    inputs: Arrays
    outputs: tuple[model.TensorSpec, ...]
    is_batchable: bool


SizesOf = Callable[[int, int], Mapping[str, tuple[int, ...]]]
"""Shapes of the inputs for a number of rows and a size of free dimensions, by name."""


def probe(
    run: Run,
    inputs: Sequence[model.TensorSpec],
    sample: Arrays | None = None,
    sizes_of: SizesOf | None = None,
) -> ProbeResult:
    """Run with one row, with several, and with other sizes where dimensions may have any.

    `sample` are inputs that the model takes, of any number of rows, if its owner gave some.
    `sizes_of` gives the shapes that the model's file allows, by default any. Raises ProbeFailed if
    the model refuses all made-up inputs, or the sample.
    """
    sizes_of = sizes_of or functools.partial(_free_sizes, inputs)
    tried = (
        _try_sample(run, inputs, sample) if sample else _find_inputs_that_run(run, inputs, sizes_of)
    )
    runs = [tried.first]
    is_batchable = False
    if tried.has_one_row and any(spec.shape[:1] == (-1,) for spec in inputs):
        many = attempt(run, tried.feeds)
        if not isinstance(many, Exception):
            runs.append(many)
            may_have_rows = tried.has_unlike_rows and all(
                spec.shape[:1] == (-1,) for spec in inputs
            )
            is_batchable = may_have_rows and _has_same_rows(run, tried.feeds, tried.first, many)
    if any(-1 in spec.shape[1:] for spec in inputs) and not sample:
        others = (
            attempt(run, _made(inputs, sizes_of, 1, int(tried.size * growth), tried.style))
            for growth in GROWTHS
        )
        runs.append(
            next((other for other in others if not isinstance(other, Exception)), tried.first)
        )
    outputs = _common_specs(runs)
    if sample:
        # What one request shows of sizes beyond the rows is no rule.
        outputs = tuple(replace(spec, shape=(-1,) * len(spec.shape)) for spec in outputs)
    return ProbeResult(tried.taken, outputs, is_batchable)


@dataclass(frozen=True, slots=True)
class _Tried:
    """Inputs of several rows, and those that the model took: one row of them if it takes that.

    `first` is what it answered to `taken`. `has_unlike_rows`: the rows differ, so that answers to
    them may prove something. `size` is that of free dimensions, `style` how values were made.
    """

    feeds: Arrays
    taken: Arrays
    first: Arrays
    has_one_row: bool
    has_unlike_rows: bool
    size: int
    style: made_up_values.Style


def _try_sample(run: Run, inputs: Sequence[model.TensorSpec], sample: Arrays) -> _Tried:
    """Return the sample's first row as what the model takes, or all of it. Raises ProbeFailed."""
    rows = {len(sample[spec.name]) for spec in inputs if spec.shape[:1] == (-1,)}
    one = _first_rows(sample, inputs)
    answer = attempt(run, one) if len(rows) == 1 else attempt(run, sample)
    has_one_row = not isinstance(answer, Exception) and len(rows) == 1
    if isinstance(answer, Exception):
        answer = attempt(run, sample)
        if isinstance(answer, Exception):
            raise ProbeFailed(answer)
    taken = one if has_one_row else sample
    has_unlike_rows = has_one_row and max(rows) >= ROWS
    return _Tried(sample, taken, answer, has_one_row, has_unlike_rows, 0, made_up_values.unchanged)


def make_up(
    inputs: Sequence[model.TensorSpec], free_size: int, rows: int = ROWS
) -> dict[str, np.ndarray]:
    """Return inputs with the specs' datatypes and shapes, the same at every call.

    A first dimension of any size gets `rows`, others of any size `free_size`. Rows differ, and so
    do inputs. Numbers are small, because inputs are often indices.
    """
    return _made(
        inputs, functools.partial(_free_sizes, inputs), rows, free_size, made_up_values.unchanged
    )


def _count_elements(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(map(math.prod, shapes.values()))


def _free_sizes(
    inputs: Sequence[model.TensorSpec], rows: int, free_size: int
) -> dict[str, tuple[int, ...]]:
    return {spec.name: _sized(spec.shape, free_size, rows) for spec in inputs}


def _sized(shape: tuple[int, ...], free_size: int, rows: int) -> tuple[int, ...]:
    first = tuple(rows if size < 0 else size for size in shape[:1])
    return first + tuple(free_size if size < 0 else size for size in shape[1:])


def _first_rows(feeds: Arrays, inputs: Sequence[model.TensorSpec]) -> dict[str, np.ndarray]:
    return {
        spec.name: feeds[spec.name][:1] if spec.shape[:1] == (-1,) else feeds[spec.name]
        for spec in inputs
    }


def _find_inputs_that_run(
    run: Run, inputs: Sequence[model.TensorSpec], sizes_of: SizesOf
) -> _Tried:
    """Return the first made-up inputs that the model takes. Raises ProbeFailed."""
    sizes = FREE_SIZES if any(-1 in spec.shape[1:] for spec in inputs) else FREE_SIZES[:1]
    cause: Exception | None = None
    for style in made_up_values.STYLES:
        for size in sizes:
            # The smallest size is always tried, however big the fixed dimensions are.
            if size > FREE_SIZES[0] and _count_elements(sizes_of(ROWS, size)) > ELEMENTS_MAX:
                break
            feeds = _made(inputs, sizes_of, ROWS, size, style)
            one = _made(inputs, sizes_of, 1, size, style)
            answer = attempt(run, one)
            has_one_row = not isinstance(answer, Exception)
            # Some models take no single row, as one that compares rows with each other.
            if isinstance(answer, Exception):
                # The first refusal is of the plainest values, so it tells users most.
                cause = cause or answer
                answer = attempt(run, feeds)
            if not isinstance(answer, Exception):
                taken = one if has_one_row else feeds
                # Zeros prove nothing of rows that differ, nor do others that no model asked for.
                return _Tried(
                    feeds,
                    taken,
                    answer,
                    has_one_row,
                    style is made_up_values.unchanged,
                    size,
                    style,
                )
    assert cause is not None, "no inputs were tried"
    raise ProbeFailed(cause)


def _made(
    inputs: Sequence[model.TensorSpec],
    sizes_of: SizesOf,
    rows: int,
    size: int,
    style: made_up_values.Style,
) -> dict[str, np.ndarray]:
    shapes = sizes_of(rows, size)
    return style(
        {
            spec.name: made_up_values.make(spec.datatype, shapes[spec.name], position)
            for position, spec in enumerate(inputs)
        }
    )


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
    rows = len(next(iter(feeds.values())))
    for row in range(rows):
        part = {name: array[row : row + 1] for name, array in feeds.items()}
        alone = first if row == 0 else attempt(run, part)
        if isinstance(alone, Exception) or not all(
            many[name].shape[:1] == (rows,)
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
