from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshserve import logs


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


def test_a_line_has_time_level_logger_and_message(package_logger: Any, tmp_path: Path) -> None:
    logs.to_file(str(tmp_path / "logs"), "default-0")
    package_logger.getChild("worker.host").warning("model %s failed", "iris")
    package_logger.getChild("worker.host").debug("not this")
    (line,) = (tmp_path / "logs" / "default-0.log").read_text().splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING meshserve\.worker\.host: model iris failed",
        line,
    )


def test_other_packages_and_the_screen_are_left_alone(
    package_logger: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logs.to_file(str(tmp_path), "w")
    package_logger.info("to the file alone")
    logging.getLogger("somebody").warning("not ours")
    assert [record.message for record in caplog.records] == ["not ours"]
    assert "not ours" not in (tmp_path / "w.log").read_text()


def test_a_restarted_process_appends_to_its_file(package_logger: Any, tmp_path: Path) -> None:
    (tmp_path / "w.log").write_text("before\n")
    logs.to_file(str(tmp_path), "w")
    package_logger.info("after")
    lines = (tmp_path / "w.log").read_text().splitlines()
    assert (len(lines), lines[0], lines[1].endswith("after")) == (2, "before", True)


def test_old_lines_are_dropped(
    package_logger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "BYTES_MAX", 1000)
    logs.to_file(str(tmp_path), "w")
    for number in range(200):
        package_logger.info("line %d", number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["w.log", *(f"w.log.{number}" for number in range(1, logs.OLD_FILES + 1))]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert (tmp_path / "w.log").read_text().rstrip().endswith("line 199")
