"""Rules by which operators keep the rows of a batch apart, judged from shapes at two batch sizes.

A model is run with 3 and with 5 rows. A tensor's batch axis is the one whose size follows the
number of rows, so axes need no inference. Each operator of a walk must then obey a rule of this
module; an operator without a rule may mix rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

ROWS = (3, 5)
"""Rows in the two runs: two primes, so that sizes that follow them are no chance."""

LAST_OF_STACK = -3
"""The last of the dimensions that number the matrices of a stack, counted from the right."""

Shapes: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]


class RowsMix(Exception):
    """An operator mixes rows, or may do so; the message says where."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor of a walk. `axis` is its batch axis, or None if it is the same in every run."""

    shapes: Shapes
    axis: int | None = None

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shapes[0])

    @property
    def from_right(self) -> int:
        """The batch axis, counted from the last dimension as broadcasting does: -1, -2, …."""
        assert self.axis is not None, "a constant has no batch axis"
        return self.axis - self.rank


def names_in(text: str) -> frozenset[str]:
    """Return the operators that a text names, separated by blanks or lines."""
    return frozenset(text.split())


def constant(shape: Iterable[int] = ()) -> Operand:
    """Return an operand that is the same in every run."""
    sizes = tuple(shape)
    return Operand((sizes, sizes))


def rows_of(shapes: Shapes) -> Operand:
    """Return an operand with rows. Raises RowsMix unless one axis follows the number of rows."""
    first, second = shapes
    if len(first) != len(second):
        raise RowsMix("the number of dimensions depends on the number of rows")
    axes = [axis for axis, sizes in enumerate(zip(first, second, strict=True)) if len({*sizes}) > 1]
    if len(axes) != 1:
        raise RowsMix("no single axis follows the number of rows")
    axis = axes[0]
    # An axis may also hold some elements of each row, as [rows * heads] does.
    if first[axis] * ROWS[1] != second[axis] * ROWS[0] or first[axis] % ROWS[0]:
        raise RowsMix("a size is no multiple of the number of rows")
    return Operand(shapes, axis)


def elementwise(inputs: Iterable[Operand], output: Operand) -> None:
    """Check an operator on elements at equal places, with broadcasting. Raises RowsMix."""
    for operand in inputs:
        if operand.axis is not None and operand.from_right != output.from_right:
            raise RowsMix("broadcasting sets rows against another dimension")


def regrouped(value: Operand, output: Operand) -> None:
    """Check a change of shape that keeps the order of elements: rows stay whole. Raises RowsMix."""
    for shape, new_shape in zip(value.shapes, output.shapes, strict=True):
        if math.prod(shape[: value.axis]) != math.prod(new_shape[: output.axis]):
            raise RowsMix("a reshape tears rows apart")


def along(value: Operand, axes: Iterable[int] | None) -> None:
    """Check an operator along `axes`, which may be negative; None is all. Raises RowsMix."""
    if value.axis is None:
        return
    if axes is None or any(axis % value.rank == value.axis for axis in axes):
        raise RowsMix("it works along the rows")


def same_size(value: Operand, output: Operand) -> None:
    """Check that the batch axis kept its place and its size. Raises RowsMix."""
    elementwise([value], output)
    if value.axis is None:
        return
    if value.shapes[0][value.axis] != output.shapes[0][output.from_right]:
        raise RowsMix("the number of rows changes")


def matmul(left: Operand, right: Operand) -> None:
    """Check a product of (stacks of) matrices, as numpy's matmul has it. Raises RowsMix."""
    if left.axis is not None and left.from_right == -1:
        raise RowsMix("a product sums over the rows")
    # A product sums over the only dimension of a vector.
    if right.axis is not None and right.from_right == (-2 if right.rank > 1 else -1):
        raise RowsMix("a product sums over the rows")
    if left.axis is None or right.axis is None:
        return
    if left.from_right != right.from_right or left.from_right > LAST_OF_STACK:
        raise RowsMix("a product combines each row with every other")


def at_axis(value: Operand, axis: int) -> None:
    """Check an operator whose definition puts the batch at `axis`. Raises RowsMix."""
    if value.axis not in (None, axis):
        raise RowsMix("rows are where the operator has no batch")


def constants(values: Iterable[Operand]) -> None:
    """Check that these operands, such as weights, do not depend on rows. Raises RowsMix."""
    if any(value.axis is not None for value in values):
        raise RowsMix("a weight depends on the rows")


def check_output(name: str, output: Operand) -> None:
    """Check that an output has one row for each row of the inputs. Raises RowsMix."""
    if output.axis != 0 or tuple(shape[0] for shape in output.shapes) != ROWS:
        raise RowsMix(f"output {name!r} has not one row for each row of the inputs")
