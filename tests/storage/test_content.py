from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve import errors
from meshserve.storage import content

HEX = {"a": "1" * 64, "b": "2" * 64}


def test_a_file_has_the_digest_of_its_bytes(make_file: Callable[..., Path]) -> None:
    assert content.digest(make_file("a")) == f"sha256:{hashlib.sha256(b'model').hexdigest()}"


def test_a_folder_has_the_digest_of_its_lines(make_file: Callable[..., Path]) -> None:
    folder = make_file("w/b", b"2").parent.parent
    make_file("a", b"1")
    lines = "".join(
        f"{name}\0{hashlib.sha256(text).hexdigest()}\n"
        for name, text in (("a", b"1"), ("w/b", b"2"))
    )
    assert content.digest(folder) == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


@given(st.dictionaries(st.text(), st.sampled_from(sorted(HEX.values())), min_size=1), st.randoms())
def test_a_folders_digest_does_not_know_the_order(hexes: dict[str, str], random: Any) -> None:
    shuffled = list(hexes.items())
    random.shuffle(shuffled)
    assert content.tree_digest(dict(shuffled)) == content.tree_digest(hexes)


@given(
    st.dictionaries(st.text(alphabet="ab/", min_size=1), st.just(HEX["a"]), min_size=1, max_size=3)
)
def test_another_name_is_another_folder(hexes: dict[str, str]) -> None:
    renamed = {f"{name}x": digest for name, digest in hexes.items()}
    assert content.tree_digest(renamed) != content.tree_digest(hexes)


def test_a_copy_is_equal_read_only_and_without_hidden_files(
    tmp_path: Path, make_file: Callable[..., Path]
) -> None:
    source = make_file("m/w/b").parent.parent
    for hidden in (".git/config", "__pycache__/m.pyc", ".DS_Store"):
        make_file(f"m/{hidden}")
    target = tmp_path / "copy"
    target.mkdir()
    assert content.copy(source, target) == content.digest(source) == content.digest(target)
    assert [
        (path.name, path.stat().st_mode & 0o777) for path in target.rglob("*") if path.is_file()
    ] == [("b", 0o400)]


@pytest.mark.parametrize(
    ("folder", "target"),
    [
        ("models--o--m/snapshots/abc", "models--o--m/blobs/1234"),
        ("models--o--m/snapshots/abc/onnx", "models--o--m/blobs/1234"),
        ("m", "m/..2026/a.onnx"),
        ("m/2", "m/1/weights.bin"),
    ],
)
def test_links_of_usual_layouts_are_followed(
    tmp_path: Path, make_file: Callable[..., Path], folder: str, target: str
) -> None:
    path = make_file(target)
    model = tmp_path / "models" / folder
    model.mkdir(parents=True, exist_ok=True)
    (model / "link.onnx").symlink_to(path)
    (tmp_path / "copy").mkdir()
    content.copy(model, tmp_path / "copy")
    assert not (tmp_path / "copy" / "link.onnx").is_symlink()
    assert (tmp_path / "copy" / "link.onnx").read_bytes() == b"model"


@pytest.mark.parametrize("target", ["/etc/passwd", "/etc", "../other/secret.bin", "../../models"])
@pytest.mark.parametrize("read", [content.stamp, content.digest])
def test_links_out_of_the_folder_are_refused(
    make_file: Callable[..., Path], target: str, read: Callable[[Path], object]
) -> None:
    make_file("other/secret.bin")
    folder = make_file("m/model.onnx").parent
    (folder / "data.bin").symlink_to(target)
    with pytest.raises(errors.LoadFailed, match="outside of the model's folder"):
        read(folder)


def test_a_file_that_becomes_a_link_while_it_is_copied_is_refused(
    tmp_path: Path, make_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_file("m/model.onnx")
    listed = content.files(file.parent)
    file.unlink()
    file.symlink_to("/etc/passwd")
    monkeypatch.setattr(content, "files", lambda _: listed)
    (tmp_path / "copy").mkdir()
    with pytest.raises(errors.LoadFailed, match="out of the model's folder"):
        content.copy(file.parent, tmp_path / "copy")


def test_what_leaves_the_file_root_while_it_is_read_is_refused(
    tmp_path: Path, make_file: Callable[..., Path]
) -> None:
    # The path was checked before: here its file, and its folder, have become links since.
    secret = make_file("secret/model.onnx")
    root = make_file("allowed/file.onnx").parent
    (root / "folder").symlink_to(secret.parent)
    (root / "link.onnx").symlink_to(secret)
    for path in (root / "folder", root / "link.onnx", root / "folder" / "model.onnx"):
        with pytest.raises(errors.LoadFailed, match="out of the model's folder"):
            content.digest(path, str(root))
        target = tmp_path / f"copy-{path.name}-{path.parent.name}"
        target.mkdir()
        with pytest.raises(errors.LoadFailed, match="out of the model's folder"):
            content.copy(path, target / "model.onnx" if path.is_file() else target, str(root))
    assert content.digest(root / "file.onnx", str(root)) == content.digest(root / "file.onnx")


def test_a_folder_is_inside_itself_and_no_neighbour_is(make_file: Callable[..., Path]) -> None:
    file = make_file("root/a/model.onnx")
    root = file.parent.parent
    assert all(content.is_inside(str(path), f"{root}/") for path in (root, file.parent, file))
    assert content.is_inside(str(file), "/")
    assert not content.is_inside(f"{root}-beside/model.onnx", str(root))
    assert not content.is_inside(f"{root}/../model.onnx", str(root))


def test_links_may_leave_where_the_caller_says_so(make_file: Callable[..., Path]) -> None:
    folder = make_file("m/model.onnx").parent
    (folder / "data.bin").symlink_to("/etc/passwd")
    assert len(content.files(folder, may_leave=True)) == 2


def test_the_folder_itself_may_be_a_link(tmp_path: Path, make_file: Callable[..., Path]) -> None:
    make_file("releases/3/model.onnx")
    (tmp_path / "current").symlink_to(tmp_path / "models" / "releases" / "3")
    assert [name for name, _ in content.files(tmp_path / "current")] == ["model.onnx"]


def test_a_loop_of_links_ends(make_file: Callable[..., Path]) -> None:
    folder = make_file("m/a").parent
    (folder / "again").symlink_to(folder)
    with pytest.raises((errors.LoadFailed, OSError), match=r"deep|symbolic links"):
        content.digest(folder)


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(errors.LoadFailed, match="neither a file nor a folder"):
            content.digest(path)


def test_too_many_files_are_refused(make_file: Callable[..., Path]) -> None:
    folder = max(make_file(f"m/{number}") for number in range(3)).parent
    with pytest.raises(errors.LoadFailed, match="more than 2 files"):
        content.files(folder, files_max=2)


def change_bytes(path: Path) -> None:
    path.write_bytes(b"other")


def change_size(path: Path) -> None:
    path.write_bytes(b"longer than before")


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(b"model")
    os.utime(path.with_name("new"), ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
    path.with_name("new").replace(path)


def hide_change(path: Path) -> None:
    before = path.stat().st_mtime_ns
    path.write_bytes(b"other")
    os.utime(path, ns=(before, before))


@pytest.mark.parametrize("change", [change_bytes, change_size, replace, hide_change])
def test_every_change_changes_the_stamp(
    make_file: Callable[..., Path], change: Callable[..., Any]
) -> None:
    path = make_file("m/a")
    before = content.stamp(path), content.stamp(path.parent)
    change(path)
    after = content.stamp(path), content.stamp(path.parent)
    assert [one.text == other.text for one, other in zip(before, after, strict=True)] == [
        False,
        False,
    ]


def test_a_stamp_sums_up(make_file: Callable[..., Path]) -> None:
    folder = make_file("m/a", b"12").parent
    make_file("m/b", b"345", is_old=False)
    stamp = content.stamp(folder)
    assert (stamp.size_bytes, stamp.files) == (5, 2)
    assert stamp.changed_ns == (folder / "b").stat().st_mtime_ns
    assert stamp == content.stamp(folder)
