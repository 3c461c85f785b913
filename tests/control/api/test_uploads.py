from __future__ import annotations

from pathlib import Path

import pytest

from meshserve import errors
from meshserve.control.api import uploads

FILES = {"1/model.onnx": b"one", "2/sub/model.onnx": b"two"}


def test_files_are_written_by_their_names(tmp_path: Path) -> None:
    kept = uploads.keep(str(tmp_path / "up"), FILES)
    assert sorted(kept) == ["1", "2"]
    assert (kept["1"] / "model.onnx").read_bytes() == b"one"
    assert (kept["2"] / "sub" / "model.onnx").read_bytes() == b"two"


def test_the_same_files_are_kept_once(tmp_path: Path) -> None:
    assert uploads.keep(str(tmp_path), FILES) == uploads.keep(
        str(tmp_path), dict(reversed(FILES.items()))
    )
    assert len(list(tmp_path.iterdir())) == 1


def test_different_files_have_different_folders(tmp_path: Path) -> None:
    one, other = (uploads.keep(str(tmp_path), {"1/m": content})["1"] for content in (b"a", b"b"))
    assert one != other


@pytest.mark.parametrize(
    "name",
    ["model.onnx", "/1/model.onnx", "1/../../model.onnx", "", "..", "1/..", "1\\..\\x/y", "1/a\0b"],
)
def test_a_file_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="must be named as"):
        uploads.keep(str(tmp_path), {name: b"x"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "names",
    [
        ["1/" + "n" * 256],
        ["1/" + "\u00e9" * 128],
        ["1/" + "d/" * 1100 + "m.onnx"],
        ["1/a", "1/a/b"],
        ["1/a/b/c", "1/a"],
    ],
)
def test_names_that_no_disk_takes_are_the_callers_mistake(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"too long|both a file and a folder"):
        uploads.keep(str(tmp_path / "uploads"), dict.fromkeys(names, b""))
    assert not (tmp_path / "uploads").exists()


def test_the_longest_names_are_kept(tmp_path: Path) -> None:
    name = "1/" + "n" * uploads.PART_BYTES_MAX
    assert (uploads.keep(str(tmp_path), {name: b"a"})["1"] / name[2:]).read_bytes() == b"a"


def test_a_folder_is_removed_unless_it_was_kept_again(tmp_path: Path) -> None:
    uploads.keep(str(tmp_path), FILES)
    [name] = uploads.kept(tmp_path)
    uploads.remove(tmp_path, name, before_s=0.0)
    assert uploads.kept(tmp_path) == [name]
    (tmp_path / "else").mkdir()
    assert uploads.kept(tmp_path) == [name]
    uploads.remove(tmp_path, name, before_s=1e12)
    assert uploads.kept(tmp_path) == []
    assert uploads.kept(tmp_path / "none") == []
    kept = uploads.keep(str(tmp_path), FILES)
    assert (kept["1"] / "model.onnx").read_bytes() == b"one"
