"""Shows by numbers that the rows of a model's inputs do not influence each other.

It runs on several random sets: each row alone must give what it gives among others, in any order.
This is the second half of a proof; a walk over the model's operators is the first.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from meshserve.core.values import model
from meshserve.runtimes import datatypes, probing

ROWS = 4
"""Rows of most sets."""

COUNTS = (2, 7, 16, 40, 100)
"""Rows of further sets, because a model may do otherwise from some number of rows on."""

ALONE_MAX = 4
"""Of bigger sets so many rows are run alone; the others are compared in two orders."""

SECONDS_MAX = 5.0
"""After this time no further sets are run, if two were."""

COUNT_SECONDS_MAX = 1.0
"""A further set that would take longer is left out, and so are bigger ones."""

ELEMENTS_MAX = 1 << 21
"""Elements of a further set's inputs: what a model makes of them is bigger, and is in memory too.
"""

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], Arrays]

REFUSES_SEVERAL = "the model refuses several rows, each of which it takes alone"

TAKES_UNEQUAL = "its inputs may have unequal numbers of rows"

_FLOAT_SCALES = (1.0, 300.0, 1e-3, 0.0)
_INTEGER_BOUNDS = (2, 10, 300, 5000)

_TOLERANCES = {"f2": 1e-2, "f4": 1e-3, "f8": 1e-9}
"""Relative difference up to which results count as equal, by dtype.

Bits can't be expected: the kernels of BLAS for one row and for several sum in another order. Errors
of float32 grow with the depth of a model, to some 1e-4 of the largest value in the deep ones.
"""


class Kind(enum.Enum):
    """What random numbers of a set are: of both signs, with gaps in some rows, or positive."""

    SIGNED = "signed"
    WITH_GAPS = "with gaps"
    POSITIVE = "positive"


_PLAIN = ((_FLOAT_SCALES[0], _INTEGER_BOUNDS[0]), Kind.SIGNED)


def find_difference(
    run: Run, inputs: Sequence[model.TensorSpec], probe: Arrays, rows_max: int = ROWS
) -> str | None:
    """Return None if all sets that the model takes agree, else what does not.

    `probe` are inputs of one row that the model takes; sets have its sizes. `rows_max` is the most
    rows that will be joined.
    """
    return _Proof(run, inputs, probe).find_difference(rows_max)


class _Proof:
    """The sets of one model that were run so far."""

    def __init__(self, run: Run, inputs: Sequence[model.TensorSpec], probe: Arrays) -> None:
        self._run = run
        self._inputs = inputs
        self._sizes = {spec.name: probe[spec.name].shape[1:] for spec in inputs}
        # A fixed seed, so that equal models get equal verdicts.
        self._random = np.random.default_rng(0)
        self._began_s = time.monotonic()
        self._compared = 0

    def find_difference(self, rows_max: int) -> str | None:
        scales = list(zip(_FLOAT_SCALES, _INTEGER_BOUNDS, strict=True))
        for kind in Kind:
            for scale in scales:
                if self._is_late():
                    return None
                reason = self._compare(self._draw(ROWS, scale, kind))
                if reason:
                    return reason
        if not self._compared:
            return "the model takes no random inputs of several rows"
        return self._find_unequal() or self._find_dependence_on_count(rows_max)

    def _is_late(self) -> bool:
        return self._compared > 1 and time.monotonic() > self._began_s + SECONDS_MAX

    def _find_unequal(self) -> str | None:
        """Return a reason if the model uses inputs of which one has more rows than the others.

        Their first dimensions are then no batch, as in a search of each row in another input.
        """
        names = self._used_inputs() if len(self._sizes) > 1 else []
        for name in names[1:]:
            feeds, more = self._draw(ROWS, *_PLAIN), self._draw(ROWS + 1, *_PLAIN)
            if not isinstance(probing.attempt(self._run, {**feeds, name: more[name]}), Exception):
                return TAKES_UNEQUAL
        return None

    def _used_inputs(self) -> list[str]:
        """Return the inputs whose values change an output; others may have any number of rows."""
        feeds, others = self._draw(ROWS, *_PLAIN), self._draw(ROWS, *_PLAIN)
        before = probing.attempt(self._run, feeds)
        used = []
        for name in feeds:
            after = probing.attempt(self._run, {**feeds, name: others[name]})
            # A model that refuses the values shows nothing: the input counts as one that is used.
            if isinstance(before, Exception) or isinstance(after, Exception):
                return list(feeds)
            if not all(np.array_equal(after[key], array) for key, array in before.items()):
                used.append(name)
        return used

    def _find_dependence_on_count(self, rows_max: int) -> str | None:
        """Return a reason if rows are no more apart in sets of another number of rows."""
        row_elements = sum(math.prod(sizes) for sizes in self._sizes.values())
        row_s = 0.0
        for rows in (*(count for count in COUNTS if count < rows_max), rows_max):
            began_s = time.monotonic()
            if rows * row_elements > ELEMENTS_MAX or rows * row_s > COUNT_SECONDS_MAX:
                return None
            reason = self._compare(self._draw(rows, *_PLAIN))
            if reason:
                return f"with {rows} rows: {reason}"
            # The time of a row in this set is the guess for the next, bigger one.
            row_s = (time.monotonic() - began_s) / rows
        return None

    def _draw(self, rows: int, scale: tuple[float, int], kind: Kind) -> dict[str, np.ndarray]:
        drawn = {
            spec.name: _values(
                self._random, spec, (rows, *self._sizes[spec.name]), scale, kind=kind
            )
            for spec in self._inputs
        }
        for array in drawn.values():
            # A model that writes to its inputs would change the rows for its next run.
            array.flags.writeable = False
        return drawn

    def _compare(self, feeds: Arrays) -> str | None:
        """Return None if rows agree or the model takes no such rows, else a reason."""
        rows = len(next(iter(feeds.values())))
        order = self._random.permutation(rows)
        # The first and the last row, and others at random.
        chosen = sorted({0, rows - 1, *map(int, order[: ALONE_MAX - 2])})
        picked = list(range(rows)) if rows <= ALONE_MAX else chosen
        alone = _run_alone(self._run, feeds, picked)
        if alone is None:
            return None
        joined = probing.attempt(self._run, feeds)
        if isinstance(joined, Exception):
            return REFUSES_SEVERAL
        mixed = {name: np.ascontiguousarray(array[order]) for name, array in feeds.items()}
        shuffled = probing.attempt(self._run, mixed)
        if isinstance(shuffled, Exception):
            return REFUSES_SEVERAL
        self._compared += 1
        for name, array in joined.items():
            if array.shape[:1] != (rows,) or shuffled[name].shape != array.shape:
                return f"output {name!r} has not one row for each row of the inputs"
            single = [answer[name] for answer in alone]
            if any(one.shape != (1, *array.shape[1:]) for one in single):
                return f"output {name!r} has another shape for several rows"
            is_same = is_close(np.concatenate(single), array[picked])
            if not (is_same and is_close(array[order], shuffled[name])):
                return f"output {name!r} of a row depends on the other rows"
        return None


def several_rows(probe: Arrays, rows: int) -> dict[str, np.ndarray]:
    """Return the probe's only row `rows` times."""
    return {name: np.repeat(array, rows, axis=0) for name, array in probe.items()}


def _run_alone(run: Run, feeds: Arrays, rows: Sequence[int]) -> list[Arrays] | None:
    """Return the answers to each of these rows alone, or None if the model refuses one."""
    answers = []
    for row in rows:
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
    # The bound follows the largest value, because small ones carry its rounding errors.
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
    shape: tuple[int, ...],
    scales: tuple[float, int],
    *,
    kind: Kind,
) -> np.ndarray:
    scale, bound = scales
    dtype = datatypes.NUMPY_TYPES[spec.datatype]
    if spec.datatype == "BYTES":
        words = np.array([f"w{number}".encode() for number in range(bound)], np.object_)
        return np.asarray(words[random.integers(0, bound, shape)])
    if spec.datatype == "BF16" or dtype.kind == "f":
        numbers = (random.standard_normal(shape) * scale).astype(np.float32)
        if kind is Kind.POSITIVE:
            numbers = np.abs(numbers)
        if kind is Kind.WITH_GAPS:
            # Some rows only, so that a row beside a missing value shows what it does to others.
            numbers[:: ROWS - 1] = np.nan
        # bfloat16 is the upper half of a float32.
        if spec.datatype == "BF16":
            return (numbers.view(np.uint32) >> 16).astype(np.uint16)
        return numbers.astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    largest = min(bound, int(np.iinfo(dtype).max))
    smallest = -largest if kind is Kind.WITH_GAPS and dtype.kind == "i" else 0
    return random.integers(smallest, largest, shape).astype(dtype)
