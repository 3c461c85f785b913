from __future__ import annotations

from rich.text import Text

from meshserve.cli import column_fit


def test_columns_leave_by_rank_and_from_the_right_until_the_rest_fits() -> None:
    dropped, widths = [0, 2, 1, 2, 0], [10, 10, 10, 10, 10]
    assert column_fit.fitting(dropped, widths, 62) == [0, 1, 2, 3, 4]
    assert column_fit.fitting(dropped, widths, 61) == [0, 1, 2, 4]
    assert column_fit.fitting(dropped, widths, 48) == [0, 2, 4]
    assert column_fit.fitting(dropped, widths, 1) == [0, 4]


def test_a_name_with_brackets_is_no_markup() -> None:
    assert column_fit.as_text("churn[beta]") == Text("churn[beta]")
    assert column_fit.cell_width("wide: 中文") == 10
