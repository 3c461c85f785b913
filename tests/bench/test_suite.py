import signal
import subprocess
import sys

import pytest
import suite

SLEEPING = """
import pathlib, sys, time
try:
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""
RUNNING = "import pathlib, served, suite, sys; served.end_by_signals(); sys.exit(suite.run(pathlib.Path(sys.argv[1]), sys.argv[2:]))"


def written(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def test_one_that_fails_does_not_keep_the_others_from_running(tmp_path, capsys):
    programs = [
        written(tmp_path, "bad.py", "raise SystemExit(1)"),
        written(tmp_path, "good.py", ""),
    ]
    assert suite.run_all(programs, []) == {"bad": 1, "good": 0}
    assert "== bad: exit code 1" in capsys.readouterr().out


ONCE_BAD = """
import pathlib, sys
seen = pathlib.Path(sys.argv[1])
sys.exit(0 if seen.exists() else seen.touch() or 1)
"""


@pytest.mark.parametrize(("tries", "code"), [(1, 1), (2, 0)])
def test_one_that_fails_is_run_as_often_as_it_may_be_tried(tmp_path, tries, code):
    program = written(tmp_path, "noisy.py", ONCE_BAD)
    assert suite.run_all([program], [tmp_path / "seen"], tries) == {"noisy": code}


def test_one_that_always_fails_has_failed(tmp_path, capsys):
    assert suite.run_all([written(tmp_path, "bad.py", "raise SystemExit(1)")], [], 2) == {"bad": 1}
    assert capsys.readouterr().out.count("== bad: exit code 1") == 2


def test_an_interruption_ends_all(tmp_path):
    programs = [
        written(tmp_path, "stopped.py", "raise SystemExit(130)"),
        written(tmp_path, "good.py", ""),
    ]
    assert suite.run_all(programs, [], 2) == {"stopped": 130}


@pytest.mark.edge
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_program_that_runs(tmp_path, number):
    program, begun = written(tmp_path, "sleeping.py", SLEEPING), tmp_path / "begun"
    command = [sys.executable, "-c", RUNNING, program, begun]
    with subprocess.Popen(command, cwd=suite.HERE) as running:
        while not begun.exists():
            assert running.poll() is None
        running.send_signal(number)
        assert running.wait(20) == suite.INTERRUPTED


def test_every_benchmark_that_is_here_is_in_it():
    mains = {path.stem for path in suite.HERE.glob("*.py") if "program.main(" in path.read_text()}
    assert mains - {"program"} <= {*suite.BENCHMARKS, *suite.LLMS}
