from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import suite

SLEEPING = """
import pathlib, sys, time
try:
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""
RUNNING = """
import sys
from bench import served, suite
served.end_by_signals()
sys.exit(suite.run([sys.executable, *sys.argv[1:]]))
"""
ONCE_BAD = """
import pathlib, sys
seen = pathlib.Path(sys.argv[1])
sys.exit(0 if seen.exists() else seen.touch() or 1)
"""


def python(text: Any, *arguments: Any) -> Any:
    return [sys.executable, "-c", text, *arguments]


def test_a_failure_does_not_keep_the_others_from_running(
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = {"bad": python("raise SystemExit(1)"), "good": python("")}
    assert suite.run_all(commands) == {"bad": 1, "good": 0}
    assert "== bad: exit code 1" in capsys.readouterr().out


@pytest.mark.parametrize(("tries", "code"), [(1, 1), (2, 0)])
def test_a_failed_benchmark_runs_as_often_as_allowed(tmp_path: Path, tries: Any, code: Any) -> None:
    commands = {"noisy": python(ONCE_BAD, tmp_path / "seen")}
    assert suite.run_all(commands, tries) == {"noisy": code}


def test_a_benchmark_that_always_fails_has_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.run_all({"bad": python("raise SystemExit(1)")}, 2) == {"bad": 1}
    assert capsys.readouterr().out.count("== bad: exit code 1") == 2


def test_an_interruption_ends_all() -> None:
    commands = {"stopped": python("raise SystemExit(130)"), "good": python("")}
    assert suite.run_all(commands, 2) == {"stopped": 130}


@pytest.mark.edge
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_running_program(tmp_path: Path, number: Any) -> None:
    begun = tmp_path / "begun"
    command = [sys.executable, "-c", RUNNING, "-c", SLEEPING, str(begun)]
    with subprocess.Popen(command, cwd=suite.HERE.parent) as running:
        while not begun.exists():
            assert running.poll() is None
        running.send_signal(number)
        assert running.wait(20) == suite.INTERRUPTED


def test_the_suite_has_every_benchmark() -> None:
    mains = {path.stem for path in suite.HERE.glob("*.py") if "program.main(" in path.read_text()}
    assert mains - {"program"} <= {*suite.BENCHMARKS, *suite.LLMS}
