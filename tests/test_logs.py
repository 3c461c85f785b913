from __future__ import annotations

import logging
import re

import pytest

from meshserve import logs


@pytest.fixture
def ours():
    """The package's logger, as it was before afterwards."""
    logger = logging.getLogger("meshserve")
    before = (logger.level, logger.propagate, list(logger.handlers))
    yield logger
    for added in set(logger.handlers) - set(before[2]):
        logger.removeHandler(added)
        added.close()
    logger.level, logger.propagate = before[:2]


def test_a_line_says_when_how_bad_who_and_what(ours, tmp_path):
    logs.to_file(str(tmp_path / "logs"), "default-0")
    ours.getChild("worker.host").warning("model %s failed", "iris")
    ours.getChild("worker.host").debug("not this")
    (line,) = (tmp_path / "logs" / "default-0.log").read_text().splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING meshserve\.worker\.host: model iris failed",
        line,
    )


def test_other_packages_lines_and_screens_are_left_alone(ours, tmp_path, caplog):
    logs.to_file(str(tmp_path), "w")
    ours.info("to the file alone")
    logging.getLogger("somebody").warning("not ours")
    assert [record.message for record in caplog.records] == ["not ours"]
    assert "not ours" not in (tmp_path / "w.log").read_text()


def test_a_process_that_begins_again_goes_on_in_the_same_file(ours, tmp_path):
    (tmp_path / "w.log").write_text("before\n")
    logs.to_file(str(tmp_path), "w")
    ours.info("after")
    lines = (tmp_path / "w.log").read_text().splitlines()
    assert (len(lines), lines[0], lines[1].endswith("after")) == (2, "before", True)


def test_old_lines_go_when_there_are_too_many(ours, tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "BYTES_MAX", 1000)
    logs.to_file(str(tmp_path), "w")
    for number in range(200):
        ours.info("line %d", number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["w.log", *(f"w.log.{number}" for number in range(1, logs.OLD_FILES + 1))]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert (tmp_path / "w.log").read_text().rstrip().endswith("line 199")
