from __future__ import annotations

import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from meshserve.worker.models import run_journal

KEY = f"sha256:{'0' * 64}/{'1' * 12}"


def noted_keys(journal: run_journal.RunJournal) -> frozenset[str]:
    """Return the keys of the copies that run now."""
    return run_journal.running_keys(journal._slots[:])


def test_the_folder_is_private_and_in_shared_memory(tmp_path: Path) -> None:
    folder = run_journal.folder(str(tmp_path))
    try:
        assert folder.parent == run_journal.SHARED_MEMORY
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder == run_journal.folder(f"{tmp_path}/../{tmp_path.name}")
    finally:
        folder.rmdir()


def test_a_name_that_another_has_taken_is_not_used(tmp_path: Path) -> None:
    folder = run_journal.folder(str(tmp_path))
    folder.rmdir()
    folder.symlink_to(tmp_path)
    try:
        assert run_journal.folder(str(tmp_path)) == tmp_path
    finally:
        folder.unlink()


def test_without_shared_memory_it_is_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_journal, "SHARED_MEMORY", tmp_path / "missing")
    assert run_journal.folder(str(tmp_path)) == tmp_path


def test_old_folders_without_a_living_worker_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_journal, "SHARED_MEMORY", tmp_path)
    living, dead = (run_journal.folder(str(tmp_path / name)) for name in ("living", "dead"))
    journal = run_journal.RunJournal(living, "w")
    (dead / f"w.1{run_journal.SUFFIX}").touch()
    run_journal.remove_stale(time.time() + 10)
    assert sorted(tmp_path.iterdir()) == sorted([living, dead])
    run_journal.remove_stale(time.time() + run_journal.STALE_S + 10)
    assert list(tmp_path.iterdir()) == [living]
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_without_room_for_the_file_a_worker_notes_for_itself_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = run_journal.RunJournal(tmp_path / "missing", "w")
    assert "not noted for other workers" in caplog.text
    journal.begin(KEY)
    assert noted_keys(journal) == {KEY}
    journal.close()


def test_a_key_stands_in_the_file_only_while_its_copy_runs(tmp_path: Path) -> None:
    journal = run_journal.RunJournal(tmp_path, "w")
    assert journal.path is not None
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    journal.begin(KEY)
    assert noted_keys(journal) == {KEY}
    with journal.running("sha256:b/2"), journal.running(""):
        assert noted_keys(journal) == {KEY, "sha256:b/2"}
    journal.end()
    assert noted_keys(journal) == frozenset()
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_raises_is_noted_no_more() -> None:
    journal = run_journal.RunJournal()
    with pytest.raises(ValueError, match="x"), journal.running(KEY):
        raise ValueError("x")
    assert noted_keys(journal) == frozenset()


def test_threads_have_slots_of_their_own_and_more_than_there_are_go_without() -> None:
    journal = run_journal.RunJournal()

    def run(number: int) -> None:
        with journal.running(f"sha256:{number}/x"):
            assert f"sha256:{number}/x" in noted_keys(journal)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(500)))
    assert noted_keys(journal) == frozenset()
    blocks = [journal.running(f"sha256:{number}/x") for number in range(run_journal.SLOTS)]
    for block in blocks:
        block.__enter__()
    assert len(noted_keys(journal)) == run_journal.SLOTS - 1
    for block in blocks:
        block.__exit__(None, None, None)
    assert noted_keys(journal) == frozenset()


def test_the_longest_key_fits() -> None:
    assert len(KEY) < run_journal.SLOT_BYTES
    journal = run_journal.RunJournal()
    journal.begin(KEY)
    assert noted_keys(journal) == {KEY}
