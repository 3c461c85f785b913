from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from meshserve.logs import log_rotation


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_rotation, "BYTES_MAX", 10)


def test_a_short_file_and_none_are_left(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("short")
    assert not log_rotation.rotate(tmp_path / "a.log")
    assert not log_rotation.rotate(tmp_path / "b.log")
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]


def test_another_process_goes_on_in_the_emptied_file(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with path.open("a") as other:
        for number in range(6):
            other.write(f"line number {number}\n")
            other.flush()
            assert log_rotation.rotate(path)
        other.write("last\n")
    assert path.read_text() == "last\n"
    assert [(tmp_path / f"a.log.{number}").read_text() for number in (1, 2, 3)] == [
        f"line number {number}\n" for number in (5, 4, 3)
    ]
    assert not (tmp_path / "a.log.4").exists()
    assert (tmp_path / "a.log.1").stat().st_mode & 0o077 == 0


def test_one_process_rotates_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("long enough to be moved")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not log_rotation.rotate(path)
    assert log_rotation.rotate(path)
