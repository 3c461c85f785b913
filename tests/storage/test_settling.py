from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from meshserve import errors
from meshserve.storage import repository_scan, settling
from tests.storage.test_repository_scan import PATTERN, Tree

S = 1_000_000_000


def is_written(path: Path, later_s: float) -> bool:
    return settling.is_being_written(path, time.time_ns() + int(later_s * S))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").write_bytes(b"model")
    return tmp_path / "1"


def test_what_changed_within_a_second_is_being_written(folder: Path) -> None:
    assert is_written(folder, 0.5)
    assert is_written(folder / "model.onnx", 0.5)
    assert not is_written(folder, 1.5)
    assert not is_written(folder / "model.onnx", 1.5)


def test_a_clock_that_is_far_behind_the_writer_s_does_not_block_for_ever(folder: Path) -> None:
    assert is_written(folder, -5.0)
    assert not is_written(folder, -60.0)


@pytest.mark.parametrize(
    "name", [".model.onnx.Xy12ab", "w.part", ".w.filepart", "w.tmp", ".~tmp~/w.Xy12ab"]
)
def test_a_hidden_change_restarts_the_settling_time(folder: Path, name: str) -> None:
    os.utime(folder / "model.onnx", (1, 1))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"half")
    assert is_written(folder, 0.5)


@pytest.mark.parametrize("name", [".model.onnx.Xy12ab", "w.part", ".w.filepart", "w.tmp", "W.TMP"])
def test_a_transfer_s_file_counts_longer_and_not_for_ever(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"half")
    assert is_written(folder, 8.0)
    assert not is_written(folder, 12.0)


@pytest.mark.parametrize("name", ["model.onnx~", ".model.py.swp", ".hidden", "weights.npy"])
def test_an_editor_s_or_any_other_file_counts_no_longer(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"other")
    assert not is_written(folder, 1.5)


def test_a_file_that_left_restarts_the_settling_time(folder: Path) -> None:
    (folder / "other").write_bytes(b"other")
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    os.utime(folder, (1, 1))
    (folder / "other").unlink()
    assert is_written(folder, 0.5)


@pytest.mark.parametrize("name", ["model.onnx", ".model.onnx.Xy12ab", "weights.npy"])
def test_a_file_that_is_open_for_writing_is_being_written(folder: Path, name: str) -> None:
    with (folder / name).open("ab"):
        assert is_written(folder, 30.0)
        # Some programs never close their files.
        assert not is_written(folder, 61.0)
    assert not is_written(folder, 30.0)


def test_a_file_that_is_open_for_reading_is_not_being_written(folder: Path) -> None:
    with (folder / "model.onnx").open("rb"):
        assert not is_written(folder, 30.0)


def test_a_writer_that_comes_during_the_look_ends_no_process(folder: Path) -> None:
    """The kernel tells the holder of a lease by a signal, and SIGIO would end this process."""
    file = str(folder / "model.onnx")
    writer = os.fork()
    if writer == 0:
        try:
            while True:
                os.close(os.open(file, os.O_WRONLY))
        finally:
            os._exit(0)
    try:
        looks = [settling.is_open_for_writing(file) for _ in range(3000)]
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
    assert set(looks) <= {True, False}


def test_a_big_hidden_folder_is_looked_at_in_part(folder: Path) -> None:
    (folder / ".git").mkdir()
    for number in range(settling.HIDDEN_MAX + 10):
        (folder / ".git" / str(number)).touch()
    assert not is_written(folder, 1.5 + 5.0)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.LoadFailed, match="holds no files"):
        settling.is_being_written(tmp_path, time.time_ns())
    with pytest.raises(FileNotFoundError):
        settling.is_being_written(tmp_path / "gone", time.time_ns())


def test_what_can_t_be_opened_is_not_known_to_be_open(tmp_path: Path) -> None:
    assert not settling.is_open_for_writing(str(tmp_path / "gone"))


# In a repository


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "models").mkdir()
    return Tree(tmp_path / "models")


def entry(tree: Tree, name: str, before: Any, later_s: float = 5.0) -> Any:
    now_ns = time.time_ns() + int(later_s * 1e9)
    return repository_scan.EntryScanner(tree.folder, PATTERN, now_ns).scan(name, before)


def test_a_model_stays_as_it_was_while_rsync_sends_its_next_file(tree: Tree) -> None:
    graph = tree.put("m/1/model.onnx", "old")
    tree.put("m/1/model.onnx.data", "old")
    tree.put("m/labels.txt", "a\nb\n")
    output = 'name: "y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt"'
    tree.put("m/config.pbtxt", f"output [ {{ {output} }} ]")
    before = entry(tree, "m", repository_scan.NOTHING)
    tree.put("m/labels.txt", "b\na\n")
    graph.write_text("new")
    part = tree.put("m/1/.model.onnx.data.Xy12ab", "ne")
    with part.open("ab"):
        during = entry(tree, "m", before, later_s=20.0)
    assert (during.specs, during.is_settling) == (before.specs, True)
    part.replace(tree.folder / "m/1/model.onnx.data")
    assert entry(tree, "m", during, later_s=0.5).specs == before.specs
    after = entry(tree, "m", during)
    assert not after.is_settling
    assert after.specs[0].uri != before.specs[0].uri
    assert after.specs[0].description != before.specs[0].description


def test_a_file_written_by_a_slow_writer_is_not_declared(tree: Tree) -> None:
    path = tree.put("m.onnx", "old")
    before = entry(tree, "m.onnx", repository_scan.NOTHING)
    with path.open("r+b") as writing:
        writing.write(b"ne")
        writing.flush()
        during = entry(tree, "m.onnx", before, later_s=30.0)
    assert (during.specs, during.is_settling) == (before.specs, True)
    assert entry(tree, "m.onnx", during).specs[0].uri != before.specs[0].uri


def test_a_new_version_that_rsync_sends_is_not_declared(tree: Tree) -> None:
    tree.put("m/1/model.onnx")
    tree.put("m/2/model.onnx")
    with tree.put("m/2/.model.onnx.data.Xy12ab", "ha").open("ab"):
        scanned = entry(tree, "m", repository_scan.NOTHING, later_s=30.0)
    assert [spec.id.version for spec in scanned.specs] == ["1"]
    assert scanned.is_settling


def test_a_temporary_file_beside_an_unchanged_model_changes_nothing(tree: Tree) -> None:
    tree.put("m/1/model.onnx")
    before = entry(tree, "m", repository_scan.NOTHING)
    with tree.put("m/1/.model.onnx.Xy12ab", "ha").open("ab"):
        assert entry(tree, "m", before) == before
