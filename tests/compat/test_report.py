from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from compat import cases, catalogue, report, world

ROW = re.compile(r"^\| (?P<peer>[^|]+) \| (?P<kind>[^|]+) \| .*", re.MULTILINE)
PAGE = report.PAGE.read_text(encoding="utf-8")


def rows(name: str) -> list[list[str]]:
    """Return the cells of a generated table of the page."""
    _, _, rest = PAGE.partition(f"<!-- {name}: written by `{report.COMMAND}` -->\n")
    lines = rest.partition("<!-- end -->")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line]


def test_the_page_has_as_many_cases_as_there_are() -> None:
    written = {(peer, kind): int(ran) for peer, kind, _, ran, *_ in rows("results")}
    counted = Counter(
        (case.peer, case.kind) for case in catalogue.all_cases() if not case.is_refusal
    )
    assert written == dict(counted), "run `make compat`"


def test_the_page_has_every_refusal_with_its_text() -> None:
    written = [(peer, what) for peer, what, _, text in rows("refusals") if text]
    expected = [
        (case.peer, f"{case.kind}: {case.name}")
        for case in catalogue.all_cases()
        if case.is_refusal
    ]
    assert written == expected, "run `make compat`"


def test_what_failed_is_told_with_its_reason() -> None:
    for _, _, _, ran, passed, why, _ in rows("results"):
        failed = int(ran) - int(passed)
        assert why == "0" if not failed else why.startswith(f"{failed}: ")


def pass_(_: world.World) -> None:
    """Do nothing."""


def fail(_: world.World) -> None:
    raise ValueError("a | b\n<c>")


def outcome(check: cases.Check, **more: bool) -> cases.Outcome:
    asked = world.World("nowhere", Path(), {})
    return cases.outcome_of(cases.Case("P", "kind", "name", "docs", check, **more), asked)  # type: ignore[arg-type]


def test_a_row_counts_and_names_failures() -> None:
    table = report.results_table([outcome(pass_), outcome(fail), outcome(fail)])
    row = table.splitlines()[-1]
    assert row == r"| P | kind | docs | 3 | 1 | 2: name: ValueError: a \| b &lt;c> |  |"


def test_a_refusal_must_say_something() -> None:
    refused = outcome(lambda _: "no ensembles", is_refusal=True)
    silent = outcome(pass_, is_refusal=True)
    assert [refused.text, silent.failure] == ["no ensembles", "it was not refused"]
    assert "no ensembles" in report.refusals_table([refused])
    assert report.results_table([refused]).count("\n") == 1


def test_the_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    monkeypatch.setattr(report, "PAGE", page)
    report.write([outcome(pass_), outcome(lambda _: "no", is_refusal=True)])
    assert "| P | kind | docs | 1 | 1 | 0 |  |" in page.read_text()
    assert "| P | kind: name | docs | no |" in page.read_text()
    assert "tritonclient 2." in page.read_text()
