from __future__ import annotations

import zipfile
from pathlib import Path, PurePath
from typing import Any

import pytest

from meshserve import errors
from meshserve.runtimes import files
from tests.runtimes import contract

STRICT = files.Layout(
    ("model.toy",),
    (".toy", ".txt"),
    lambda file: files.read_head(file, 3) == b"toy",
    is_strict=True,
)
LOOSE = files.Layout(("model.toy",), (".toy",), lambda file: files.read_head(file, 3) == b"toy")


def write(folder: Path, **contents: Any) -> None:
    for name, content in contents.items():
        (folder / name.replace("_", ".")).write_bytes(content)


def test_a_file_is_known_by_its_ending(tmp_path: Path) -> None:
    write(tmp_path, a_toy=b"?", b_dat=b"toy", c_TOY=b"?")
    assert LOOSE.find(tmp_path / "a.toy") == tmp_path / "a.toy"
    assert LOOSE.find(tmp_path / "c.TOY") == tmp_path / "c.TOY"
    assert LOOSE.find(tmp_path / "b.dat") is None
    assert LOOSE.find(tmp_path / "gone.toy") is None


def test_a_file_without_an_ending_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    for name, content in (("0123abcd", b"toy"), ("other", b"no"), ("v1.2", b"toy")):
        (tmp_path / name).write_bytes(content)
    assert LOOSE.find(tmp_path / "0123abcd")
    assert LOOSE.find(tmp_path / "v1.2")
    assert not LOOSE.find(tmp_path / "other")


def test_a_strict_ending_is_held_against_the_content(tmp_path: Path) -> None:
    write(tmp_path, notes_txt=b"hello", model2_txt=b"toy")
    assert STRICT.find(tmp_path / "notes.txt") is None
    assert STRICT.find(tmp_path) == tmp_path / "model2.txt"


def test_in_a_folder_the_usual_name_wins_and_two_of_a_kind_are_none(tmp_path: Path) -> None:
    write(tmp_path, a_toy=b"", b_toy=b"")
    assert LOOSE.find(tmp_path) is None
    write(tmp_path, model_toy=b"")
    assert LOOSE.find(tmp_path) == tmp_path / "model.toy"


def test_a_folder_with_the_usual_name_has_the_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "model.toy").mkdir()
    assert LOOSE.find(tmp_path) is None
    write(tmp_path / "model.toy", model_toy=b"", weights_bin=b"")
    assert LOOSE.find(tmp_path) == tmp_path / "model.toy" / "model.toy"


def test_hidden_files_and_folders_don_t_count(tmp_path: Path) -> None:
    write(tmp_path, a_toy=b"")
    (tmp_path / ".b.toy").touch()
    (tmp_path / "c.toy").mkdir()
    assert LOOSE.find(tmp_path) == tmp_path / "a.toy"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret"])
def test_the_option_file_stays_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.LoadFailed, match="inside the model's folder"):
        files.chosen_path(contract.spec(options={"file": name}), contract.artifact(tmp_path))


def test_the_option_file_names_a_file_of_the_artifact(tmp_path: Path) -> None:
    write(tmp_path, a_toy=b"1", b_toy=b"2")
    artifact = contract.artifact(tmp_path)
    assert (
        files.find_model_file(contract.spec(options={"file": "b.toy"}), artifact, LOOSE)
        == tmp_path / "b.toy"
    )
    with pytest.raises(errors.LoadFailed, match=r"no 'c\.toy' .*there is: a\.toy, b\.toy"):
        files.chosen_path(contract.spec(options={"file": "c.toy"}), artifact)
    alone = contract.artifact(tmp_path / "a.toy")
    assert files.chosen_path(contract.spec(options={"file": "a.toy"}), alone) == tmp_path / "a.toy"


def test_the_model_file_must_exist_and_not_be_empty(tmp_path: Path) -> None:
    artifact = contract.artifact(tmp_path)
    with pytest.raises(
        errors.LoadFailed, match=r"no model\.toy or one file \*\.toy; there is: nothing"
    ):
        files.find_model_file(contract.spec(), artifact, LOOSE)
    write(tmp_path, a_toy=b"")
    with pytest.raises(errors.LoadFailed, match=r"'a\.toy' is empty"):
        files.find_model_file(contract.spec(), artifact, LOOSE)


def test_an_artifact_that_is_a_file_may_have_any_name(tmp_path: Path) -> None:
    write(tmp_path, b_dat=b"x")
    assert (
        files.find_model_file(
            contract.spec(runtime="toy"), contract.artifact(tmp_path / "b.dat"), LOOSE
        )
        == tmp_path / "b.dat"
    )


def test_a_broken_archive_has_no_members(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "1")
    assert files.zip_members(tmp_path / "a.zip") == ("x",)
    (tmp_path / "cut.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-5])
    assert files.zip_members(tmp_path / "cut.zip") == ()
    assert files.zip_members(tmp_path / "gone.zip") == ()


def test_a_listing_is_short(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}").touch()
    assert files.list_names(tmp_path) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
    assert files.list_names(PurePath("/nowhere/m.toy")) == "m.toy"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("\n  [Lib] : it broke.\nmore", "it broke"),
        ("", "ValueError"),
        ("plain", "plain"),
        ("x" * 500, "x" * 400),
    ],
)
def test_a_library_s_message_becomes_one_line(message: str, line: Any) -> None:
    assert files.summarize(ValueError(message), ("[Lib] :",)) == line
