from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bench import program, results, served

REACHED, MISSED = results.at_most("w", 1, "ms", 2), results.at_most("w", 3, "ms", 2)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a benchmark that finds these claims, or raises; returns its exit code."""
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path / "whole")
    monkeypatch.setattr(results, "QUICK_FOLDER", tmp_path / "quick")
    monkeypatch.setattr(served, "end_by_signals", lambda: None)

    def run(*arguments: Any, claims: Any = (), failure: Any = None) -> Any:
        def measure(_console: Any, _args: Any, folder: Any) -> Any:
            assert folder.is_dir()
            if failure:
                raise failure
            return results.Results(
                1, {}, claims, (results.Table("t", ("a", "b"), (("x", "1"),), {"y": "why"}),)
            )

        monkeypatch.setattr(sys, "argv", ["one.py", *arguments])
        return program.main("one", program.parser("says"), measure)

    return run


@pytest.mark.parametrize(
    ("arguments", "claim", "code"),
    [
        ((), MISSED, 0),
        (("--strict",), MISSED, 1),
        (("--quick",), MISSED, 1),
        (("--quick",), REACHED, 0),
        (("--strict",), REACHED, 0),
    ],
)
def test_a_missed_target_ends_a_strict_or_quick_run(
    run: Any, arguments: Any, claim: Any, code: Any
) -> None:
    assert run(*arguments, claims=(claim,)) == code


def test_quick_figures_do_not_replace_whole_ones(run: Any, tmp_path: Path) -> None:
    run("--quick")
    assert [path.name for path in (tmp_path / "quick").iterdir()] == ["one.json"]
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (KeyboardInterrupt(), 130),
        (served.NotServing("it ended"), 1),
        (program.WrongAnswer("2 is not 3"), 1),
    ],
)
def test_a_failure_is_told_and_saves_nothing(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], failure: Any, code: Any
) -> None:
    assert run(failure=failure) == code
    assert (str(failure) or "stopped") in capsys.readouterr().out
    assert not (tmp_path / "whole").exists()


def test_a_claim_is_said_in_a_line() -> None:
    said = program.as_line(results.times("speed", "req/s", 300.0, ("other", 100.0), 2.0))
    assert said == "reached  speed: 300 req/s beside 100 of other: 3.00 × (≥ 2 ×)"
    assert program.as_line(MISSED) == "MISSED   w: 3 ms (≤ 2 ms)"
