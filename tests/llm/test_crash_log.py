from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

import pytest

from meshserve.llm import crash_log

ANOTHER_PID = 0


def logger_of(parent_pid: int, folder: Path) -> logging.Logger:
    logger = logging.getLogger(f"vllm-like-{folder}")
    logger.propagate = False
    logger.addHandler(crash_log.CrashLog(str(folder / crash_log.LOG_FILE), parent_pid))
    return logger


@pytest.fixture
def log(tmp_path: Path) -> logging.Logger:
    return logger_of(ANOTHER_PID, tmp_path)


def fail(log: logging.Logger, error: Exception) -> None:
    try:
        raise error
    except ValueError:
        log.exception("it failed")


def test_the_first_exception_is_the_reason(log: logging.Logger, tmp_path: Path) -> None:
    fail(log, ValueError("the weights are broken"))
    fail(log, ValueError("and so is all that follows"))
    assert crash_log.first_reason(tmp_path, time.time()) == "ValueError: the weights are broken"


def test_an_error_without_an_exception_is_no_reason(log: logging.Logger, tmp_path: Path) -> None:
    log.error("a user's mistake")
    assert crash_log.first_reason(tmp_path, time.time()) == ""


def test_an_old_exception_is_no_reason(log: logging.Logger, tmp_path: Path) -> None:
    fail(log, ValueError("long ago"))
    assert crash_log.first_reason(tmp_path, time.time() + crash_log.RECENT_S + 1) == ""


def test_the_parents_own_exceptions_are_not_written(tmp_path: Path) -> None:
    fail(logger_of(os.getpid(), tmp_path), ValueError("in the parent"))
    assert crash_log.first_reason(tmp_path, time.time()) == ""


def test_logging_goes_on_if_the_file_can_not_be_written(
    log: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / crash_log.LOG_FILE).mkdir()
    fail(log, ValueError("lost"))
    assert "IsADirectoryError" in capsys.readouterr().err


def test_the_configuration_names_the_file_and_this_process(tmp_path: Path) -> None:
    config = json.loads(crash_log.configure(tmp_path).read_text())
    assert config["handlers"]["reasons"] == {
        "()": "meshserve.llm.crash_log.CrashLog",
        "path": str(tmp_path / crash_log.LOG_FILE),
        "parent_pid": os.getpid(),
    }
