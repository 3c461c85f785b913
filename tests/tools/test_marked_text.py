from __future__ import annotations

import pytest

from tools import marked_text

MARK = marked_text.begin("part", "make part")


def test_only_the_text_between_the_marks_is_replaced() -> None:
    text = f"a\n{MARK}\nold\n{marked_text.END}\nb\n{marked_text.END}\n"
    assert (
        marked_text.replace(text, MARK, "new\n")
        == f"a\n{MARK}\nnew\n{marked_text.END}\nb\n{marked_text.END}\n"
    )


def test_backslashes_are_taken_as_they_are() -> None:
    assert r"\1\g" in marked_text.replace(f"{MARK}\n{marked_text.END}", MARK, r"\1\g")


@pytest.mark.parametrize("text", ["", MARK, f"{MARK}{marked_text.END}{MARK}{marked_text.END}"])
def test_a_text_without_exactly_one_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not once"):
        marked_text.replace(text, MARK, "new")
