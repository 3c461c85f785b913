from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tools import measure_style


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text('"""A package."""\n')
    (package / "one.py").write_text(
        "from pkg import two\n\n\ndef f(x: int) -> int:\n    return x\n"
    )
    (package / "two.py").write_text("from pkg import one\n")
    (package / "broken.py").write_text("def :\n")
    (package / "made_pb2.py").write_text("x = 1\n")
    return package


def test_a_tree_is_measured(tree: Path) -> None:
    measured = measure_style.measure(tree, set())
    figures = measured.figures
    assert (figures["files"], figures["functions"], figures["annotated, %"]) == (3, 1, 100.0)
    assert figures["import cycles"] == 1
    assert measured.cycles == [["pkg.one", "pkg.two"]]
    assert measured.unreadable == [str(tree / "broken.py")]


def test_files_and_folders_can_be_left_out(tree: Path) -> None:
    assert measure_style.measure(tree, {"two.py", "broken.py"}).figures["files"] == 2


def test_p90_is_a_value_that_nine_tenths_do_not_exceed() -> None:
    assert [
        measure_style.p90(list(range(1, 11))),
        measure_style.p90([7]),
        measure_style.p90([]),
    ] == [
        9,
        7,
        0,
    ]


def test_the_program_prints_figures_as_json(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["measure_style", "--json", str(tree)])
    assert measure_style.main() == 0
    (figures,) = json.loads(capsys.readouterr().out)
    assert (figures["tree"], figures["files"]) == ("pkg", 3)


def test_the_program_prints_a_table_with_the_longest_functions(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["measure_style", "--worst", "1", "--cycles", str(tree)])
    assert measure_style.main() == 0
    shown = capsys.readouterr()
    assert "one.py:4 f" in shown.out
    assert "cycle: pkg.one pkg.two" in shown.out
    assert "broken.py" in shown.err
