from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshserve.logs import line_budget, log_files, log_lines, log_rotation, run_context

LABELS = run_context.RunLabels("iris", "3", "abc")


@pytest.fixture
def package_logger() -> Iterator[Any]:
    """The package's logger; its handlers and settings are restored after the test."""
    logger = logging.getLogger("meshserve")
    before = (logger.level, logger.propagate, list(logger.handlers))
    yield logger
    for added in set(logger.handlers) - set(before[2]):
        logger.removeHandler(added)
        added.close()
    logger.level, logger.propagate = before[:2]


def begin(folder: Path, name: str = "w", form: str = "text") -> log_files.LogFile:
    return log_files.to_file(log_files.LogPlan(str(folder), form), name)


def read(folder: Path) -> list[str]:
    return (folder / "w.log").read_text().splitlines()


def test_a_line_has_time_level_logger_and_message(package_logger: Any, tmp_path: Path) -> None:
    begin(tmp_path / "logs", "default-0")
    package_logger.getChild("worker.host").warning("model %s failed", "iris")
    package_logger.getChild("worker.host").debug("not this")
    (line,) = (tmp_path / "logs" / "default-0.log").read_text().splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING meshserve\.worker\.host: model iris failed",
        line,
    )


def test_a_line_of_a_run_names_it(package_logger: Any, tmp_path: Path) -> None:
    begin(tmp_path)
    token = run_context.begin(LABELS)
    package_logger.warning("first\nsecond")
    run_context.end(token)
    first, second = read(tmp_path)
    assert first.endswith("WARNING meshserve [iris 3 abc]: first")
    assert second == "    second"


def test_lines_of_json_have_a_key_for_each_thing(package_logger: Any, tmp_path: Path) -> None:
    begin(tmp_path, form="json")
    try:
        os.environ["NOT_SET_AT_ALL"]
    except KeyError:
        package_logger.exception("it failed", extra={log_lines.LABELS: LABELS})
    (line,) = map(json.loads, read(tmp_path))
    assert line["message"].startswith("it failed\nTraceback")
    assert (line["model"], line["version"], line["request_id"]) == LABELS
    assert line["level"] == "ERROR"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_other_packages_and_the_screen_are_left_alone(
    package_logger: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin(tmp_path)
    package_logger.info("to the file alone")
    logging.getLogger("somebody").warning("not ours")
    assert [record.message for record in caplog.records] == ["not ours"]
    assert "not ours" not in (tmp_path / "w.log").read_text()


def test_a_restarted_process_appends_to_its_file(package_logger: Any, tmp_path: Path) -> None:
    (tmp_path / "w.log").write_text("before\n")
    begin(tmp_path)
    package_logger.info("after")
    lines = read(tmp_path)
    assert (len(lines), lines[0], lines[1].endswith("after")) == (2, "before", True)


def test_a_long_file_is_kept_short(
    package_logger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_rotation, "BYTES_MAX", 1000)
    handler = begin(tmp_path)
    keeper = log_files._Keeper(handler, ())
    for number in range(200):
        package_logger.info("line %d", number)
        keeper.keep()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["w.log", *(f"w.log.{number}" for number in (1, 2, 3))]
    whole = "".join((tmp_path / name).read_text() for name in [*reversed(names[1:]), names[0]])
    numbers = [int(line.rpartition(" ")[2]) for line in whole.splitlines()]
    # Nothing between the oldest kept line and the last one is lost.
    assert numbers == list(range(numbers[0], 200))


def test_a_model_that_logs_in_a_loop_is_cut_and_the_mesh_is_not(
    package_logger: Any, tmp_path: Path
) -> None:
    handler = begin(tmp_path)
    for number in range(int(line_budget.BURST_LINES) * 2):
        handler.write_line("stdout", f"tick {number}", LABELS)
        package_logger.info("own %d", number)
    handler.write_line("stdout", "another", run_context.RunLabels("other", "1"))
    lines = read(tmp_path)
    ticks = sum("tick" in line for line in lines)
    assert line_budget.BURST_LINES <= ticks < line_budget.BURST_LINES * 1.5
    assert sum("own" in line for line in lines) == line_budget.BURST_LINES * 2
    assert lines[-1].endswith("stdout [other 1]: another")


def test_what_a_model_logs_badly_and_a_full_disk_raise_nothing(
    package_logger: Any, tmp_path: Path
) -> None:
    handler = begin(tmp_path)
    package_logger.info("%d", "no number")
    package_logger.info("half a pair \ud800")
    assert "no number" in (tmp_path / "w.log").read_text()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, handler.descriptor)
    os.close(full)
    package_logger.info("lost")


PROGRAM = """
import ctypes, logging, logging.config, os, subprocess, sys, threading, warnings
from meshserve.logs import log_files, run_context
handler = log_files.to_file(log_files.LogPlan(sys.argv[1]), "w")
log_files.take_output(handler, logging.INFO)
token = run_context.begin(run_context.RunLabels("iris", "3", "abc"))
print("printed")
print("no end", end="")
sys.stderr.write("an error\\n")
sys.stdout.buffer.write(b"bytes\\n")
logging.getLogger("users").info("logged")
warnings.warn("warned")
libc = ctypes.CDLL(None)
libc.write(1, b"native\\n", 7)
subprocess.run(["echo", "child"])
subprocess.run(["echo", "given"], stdout=sys.stdout)
run_context.end(token)
print("outside")
# What scripts do to logging must not silence the mesh.
logging.config.dictConfig({"version": 1})
logging.disable(logging.CRITICAL)
logging.basicConfig(force=True)
log_files._Keeper(handler, ()).keep()
logging.getLogger("meshserve.worker").info("still there")
logging.getLogger("others").warning("after force")
os.abort()
"""


def test_all_that_a_process_says_is_in_its_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, check=False
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    lines = read(tmp_path)
    marked = [line.partition(" INFO ")[2] for line in lines if " INFO " in line]
    for words in ("printed", "no endbytes"):
        assert f"stdout [iris 3 abc]: {words}" in marked
    assert "stderr [iris 3 abc]: an error" in marked
    assert "users [iris 3 abc]: logged" in marked
    assert any("UserWarning: warned" in line for line in marked)
    assert {"native", "child", "given"} <= set(lines)
    assert "stdout: outside" in marked
    assert "meshserve.worker: still there" in marked
    assert any("after force" in line for line in lines)
