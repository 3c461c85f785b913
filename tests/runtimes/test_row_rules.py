from __future__ import annotations

from collections.abc import Callable

import pytest

from meshserve.runtimes import row_rules as rules

Shape = tuple[int, ...]


def rows(*shape: int) -> rules.Operand:
    """Return an operand of this shape, whose size of -1 is the number of rows."""
    first, second = (tuple(count if size < 0 else size for size in shape) for count in rules.ROWS)
    return rules.rows_of((first, second))


@pytest.mark.parametrize(
    ("shapes", "axis"),
    [(((3, 4), (5, 4)), 0), (((4, 6), (4, 10)), 1), (((1, 2, 3), (1, 2, 5)), 2)],
)
def test_the_batch_axis_is_the_one_whose_size_follows_the_rows(
    shapes: rules.Shapes, axis: int
) -> None:
    assert rules.rows_of(shapes).axis == axis


@pytest.mark.parametrize(
    "shapes",
    [((4,), (4,)), ((3,), (5, 1)), ((3, 3), (5, 5)), ((4, 2), (6, 2)), ((), ())],
)
def test_other_shapes_have_no_batch_axis(shapes: rules.Shapes) -> None:
    with pytest.raises(rules.RowsMix):
        rules.rows_of(shapes)


def test_broadcasting_keeps_rows_apart_only_at_the_same_place() -> None:
    rules.elementwise([rows(-1, 4), rules.constant((4,))], rows(-1, 4))
    with pytest.raises(rules.RowsMix, match="broadcasting"):
        rules.elementwise([rows(4, -1)], rows(-1, 4))


@pytest.mark.parametrize(
    ("before", "after", "is_kept"),
    [
        ((-1, 4), (-1, 2, 2), True),
        ((2, -1, 4), (2, -1, 2, 2), True),
        ((2, -1, 4), (-1, 8), False),
        ((2, -1), (-1, 2), False),
    ],
)
def test_a_reshape_keeps_rows_whole_or_is_refused(
    before: Shape, after: Shape, is_kept: bool
) -> None:
    if is_kept:
        rules.regrouped(rows(*before), rows(*after))
        return
    with pytest.raises(rules.RowsMix, match="tears"):
        rules.regrouped(rows(*before), rows(*after))


@pytest.mark.parametrize(
    ("left", "right", "is_kept"),
    [
        ((-1, 4), None, True),
        (None, (4, -1), True),
        ((-1, 2, 3), (-1, 3, 2), True),
        ((4, -1), None, False),
        (None, (-1, 4), False),
        ((-1, 4), (4, -1), False),
        (None, (-1,), False),
    ],
)
def test_a_product_may_not_sum_over_rows_nor_pair_them(
    left: Shape | None, right: Shape | None, is_kept: bool
) -> None:
    operands = [rules.constant() if shape is None else rows(*shape) for shape in (left, right)]
    if is_kept:
        rules.matmul(*operands)
        return
    with pytest.raises(rules.RowsMix, match="a product"):
        rules.matmul(*operands)


def test_an_operator_along_the_rows_is_refused() -> None:
    rules.along(rows(-1, 4), [-1])
    rules.along(rules.constant((4, 4)), None)
    for axes in ([0], [-2], None):
        with pytest.raises(rules.RowsMix, match="along the rows"):
            rules.along(rows(-1, 4), axes)


def test_repeated_rows_weights_of_rows_and_other_axes_are_refused() -> None:
    checks: list[Callable[[], None]] = [
        lambda: rules.same_size(rows(-1, 4), rules.rows_of(((6, 4), (10, 4)))),
        lambda: rules.constants([rows(-1, 4)]),
        lambda: rules.at_axis(rows(4, -1), 0),
        lambda: rules.check_output("y", rows(4, -1)),
        lambda: rules.check_output("y", rules.constant((4,))),
    ]
    for check in checks:
        with pytest.raises(rules.RowsMix):
            check()
    rules.check_output("y", rows(-1, 4))
