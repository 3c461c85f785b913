"""Shows by numbers that the rows of a model's inputs do not influence each other.

It runs on several random sets: each row alone must give what it gives among others, in any order.
This is the second half of a proof; a walk over the model's operators is the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from meshserve.core.values import model
from meshserve.runtimes import datatypes, probing

ROWS = 4

SECONDS_MAX = 5.0
"""After this time no further sets are run, if two were."""

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], Arrays]

REFUSES_SEVERAL = "the model refuses several rows, each of which it takes alone"

_FLOAT_SCALES = (1.0, 300.0, 1e-3, 0.0)
_INTEGER_BOUNDS = (2, 10, 300, 5000)

_TOLERANCES = {"f2": 1e-2, "f4": 1e-3, "f8": 1e-9}
"""Relative difference up to which results count as equal, by dtype.

Bits can't be expected: the kernels of BLAS for one row and for several sum in another order. Errors
of float32 grow with the depth of a model, to some 1e-4 of the largest value in the deep ones.
"""


def find_difference(run: Run, inputs: Sequence[model.TensorSpec], probe: Arrays) -> str | None:
    """Return None if all sets that the model takes agree, else what does not.

    `probe` are inputs of one row that the model takes; sets have its sizes.
    """
    random = np.random.default_rng(0)
    began_s = time.monotonic()
    compared = 0
    for has_nan in (False, True):
        for scales in zip(_FLOAT_SCALES, _INTEGER_BOUNDS, strict=True):
            if compared > 1 and time.monotonic() > began_s + SECONDS_MAX:
                return None
            feeds = {
                spec.name: _values(
                    random, spec, probe[spec.name].shape[1:], scales, has_nan=has_nan
                )
                for spec in inputs
            }
            verdict = _compare(run, feeds, random.permutation(ROWS))
            if verdict is None:
                compared += 1
            elif verdict:
                return verdict
    return None if compared else "the model takes no random inputs of several rows"


def several_rows(probe: Arrays, rows: int) -> dict[str, np.ndarray]:
    """Return the probe's only row `rows` times."""
    return {name: np.repeat(array, rows, axis=0) for name, array in probe.items()}


def _compare(run: Run, feeds: Arrays, order: np.ndarray) -> str | None:
    """Return None if rows agree, a reason if they differ, or "" if the model takes no such rows."""
    alone = _run_alone(run, feeds)
    if alone is None:
        return ""
    joined = probing.attempt(run, feeds)
    if isinstance(joined, Exception):
        return REFUSES_SEVERAL
    mixed = {name: np.ascontiguousarray(array[order]) for name, array in feeds.items()}
    shuffled = probing.attempt(run, mixed)
    if isinstance(shuffled, Exception):
        return REFUSES_SEVERAL
    for name, array in joined.items():
        if array.shape[:1] != (ROWS,) or shuffled[name].shape != array.shape:
            return f"output {name!r} has not one row for each row of the inputs"
        single = [answer[name] for answer in alone]
        if any(one.shape != (1, *array.shape[1:]) for one in single):
            return f"output {name!r} has another shape for several rows"
        expected = np.concatenate(single)
        if not (is_close(expected, array) and is_close(expected[order], shuffled[name])):
            return f"output {name!r} of a row depends on the other rows"
    return None


def _run_alone(run: Run, feeds: Arrays) -> list[Arrays] | None:
    """Return the answers to each row alone, or None if the model refuses one."""
    answers = []
    for row in range(ROWS):
        one = {name: array[row : row + 1] for name, array in feeds.items()}
        answer = probing.attempt(run, one)
        if isinstance(answer, Exception):
            return None
        answers.append(answer)
    return answers


def is_close(left: np.ndarray, right: np.ndarray) -> bool:
    """Return whether two results of the same rows are equal but for rounding."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if np.array_equal(left, right):
        return True
    tolerance = _TOLERANCES.get(left.dtype.str[1:])
    if tolerance is None:
        return False
    finite = np.abs(left[np.isfinite(left)])
    largest = float(finite.max()) if finite.size else 0.0
    return bool(
        np.allclose(left, right, rtol=tolerance, atol=tolerance * largest / 10, equal_nan=True)
    )


def describe_difference(left: np.ndarray, right: np.ndarray) -> str:
    """Return in words how two results of any shapes differ, without values that may be private."""
    if left.shape != right.shape:
        return f"has shape {list(left.shape)} alone, {list(right.shape)} joined"
    if left.dtype != right.dtype:
        return f"is {left.dtype} alone, {right.dtype} joined"
    if left.dtype.kind not in "iuf":
        return f"has other values in {int((left != right).sum())} of {left.size} places"
    first, second = left.astype(np.float64), right.astype(np.float64)
    is_comparable = np.isfinite(first) & np.isfinite(second)
    if (np.isfinite(first) != np.isfinite(second)).any() or not is_comparable.any():
        return "has numbers in other places"
    distance = float(np.abs(first - second)[is_comparable].max())
    return f"differs by up to {distance:.2g}, and its values reach {np.abs(first).max():.2g}"


def _values(
    random: np.random.Generator,
    spec: model.TensorSpec,
    sizes: tuple[int, ...],
    scales: tuple[float, int],
    *,
    has_nan: bool,
) -> np.ndarray:
    scale, bound = scales
    shape = (ROWS, *sizes)
    dtype = datatypes.NUMPY_TYPES[spec.datatype]
    if spec.datatype == "BYTES":
        words = np.array([f"w{number}".encode() for number in range(bound)], np.object_)
        return np.asarray(words[random.integers(0, bound, shape)])
    if spec.datatype == "BF16" or dtype.kind == "f":
        numbers = (random.standard_normal(shape) * scale).astype(np.float32)
        if has_nan:
            # Some rows only, so that a row beside a missing value shows what it does to others.
            numbers[:: ROWS - 1] = np.nan
        if spec.datatype == "BF16":
            return (numbers.view(np.uint32) >> 16).astype(np.uint16)
        return numbers.astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    largest = min(bound, int(np.iinfo(dtype).max))
    smallest = -largest if has_nan and dtype.kind == "i" else 0
    return random.integers(smallest, largest, shape).astype(dtype)
