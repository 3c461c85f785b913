from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshserve.launch import leftovers
from tests import support

PARENT = """
import pathlib, sys
from meshserve.launch import leftovers
guard = leftovers.begin_guard(*map(pathlib.Path, sys.argv[1:]))
print(guard.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "run" / "ray").mkdir(parents=True)
    return tmp_path / "run"


@pytest.fixture
def user(run_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that was started for the mesh of the folder."""
    with sleeping(str(run_dir)) as process:
        yield process
        process.kill()


def sleeping(mark: str) -> subprocess.Popen[bytes]:
    variables = {**os.environ, leftovers.MARK: mark}
    return subprocess.Popen(["sleep", "600"], env=variables)


def test_processes_of_the_folder_are_killed_and_the_folders_removed(
    run_dir: Path, user: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    (tmp_path / "journals").mkdir()
    with sleeping(f"{run_dir}-of-another") as other:
        leftovers.remove(run_dir, tmp_path / "journals", tmp_path / "missing")
        assert user.wait(60) == -9
        assert other.poll() is None
        other.kill()
    assert list(tmp_path.iterdir()) == []


def test_the_ends_of_rays_logs_are_kept(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "LOG_BYTES_MAX", 4)
    kept, session = tmp_path / "state" / "logs", run_dir / "ray" / "session_2026" / "logs"
    session.mkdir(parents=True)
    (run_dir / "ray" / "session_latest").symlink_to("session_2026")
    for name, text in {"raylet.out": "long end", "raylet.err": "", "other.log": "x"}.items():
        (session / name).write_text(text)
    (kept / "ray").mkdir(parents=True)
    (kept / "ray" / "older.log").write_text("of the mesh before")
    (run_dir / leftovers.LOGS).symlink_to(kept)
    leftovers.remove(run_dir)
    assert {path.name: path.read_text() for path in (kept / "ray").iterdir()} == {
        "raylet.out": " end"
    }
    assert not run_dir.exists()


def test_a_killed_process_has_its_leftovers_removed(
    run_dir: Path, user: subprocess.Popen[bytes]
) -> None:
    command = [sys.executable, "-c", PARENT, str(run_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        guard = int(parent.stdout.readline())
        assert user.poll() is None
        parent.kill()
    assert user.wait(60) == -9
    support.wait_until(lambda: not run_dir.exists(), 60, "the folder is removed")
    support.wait_until(lambda: not is_running(guard), 60, "the guard has ended")


def is_running(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def test_an_ended_guard_removes_nothing(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(leftovers.MARK, "")
    guard = leftovers.begin_guard(run_dir)
    with subprocess.Popen(["sleep", "600"]) as started:
        leftovers.end_guard(guard)
        assert run_dir.exists()
        assert started.poll() is None
        leftovers.remove(run_dir)
        assert started.wait(60) == -9


def test_somebody_who_reads_a_file_of_the_folder_is_no_leftover(run_dir: Path) -> None:
    log = run_dir / "log"
    log.touch()
    with subprocess.Popen(["tail", "-f", str(log)]) as reader:
        leftovers.remove(run_dir)
        assert reader.poll() is None
        reader.kill()


def test_a_process_that_has_ended_already_is_no_error(run_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    leftovers.main(process.pid, run_dir)
    assert not run_dir.exists()
