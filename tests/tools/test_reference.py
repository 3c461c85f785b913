from __future__ import annotations

import sys

import pytest

from meshserve import errors
from tools import reference


@pytest.mark.parametrize("name", reference.PARTS)
def test_the_page_is_as_the_code_is(name: str) -> None:
    page = reference.DOCS / f"{name}.md"
    assert reference.fresh(name) == page.read_text(), "run `make docs`"


def test_every_error_is_listed_with_its_codes() -> None:
    table = reference.errors_markdown()
    assert f"| `{errors.LoadFailed.__name__}` | FAILED_PRECONDITION | 424 |" in table
    assert table.count("\n") - 1 == len(errors.__dict__.keys() & set(table.split("`")))


def test_every_command_has_its_usage_and_options() -> None:
    page = reference.cli_markdown()
    assert "### `meshserve models pin`" in page
    assert "    meshserve up [OPTIONS] CONFIG" in page
    assert "| `--address auto\\|HOST:PORT` |" in page
    assert "--endpoint" not in page


def test_the_program_says_what_is_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["reference", "--check"])
    assert reference.main() == 0
    monkeypatch.setitem(reference.PARTS, "errors", lambda: "| new |")
    assert reference.main() == 1
