from __future__ import annotations

import contextlib
import gzip
import io
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve import errors
from meshserve.storage import archives

LIMIT_BYTES = 1 << 20
PARTS = st.sampled_from(["a", "b", "..", ".", "", "~", "C:", "\\", ".hidden", "e\u0301", " "])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join).filter(lambda name: "\0" not in name)
KINDS = st.sampled_from(
    [
        tarfile.REGTYPE,
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
    ]
)


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tarred(*members: tuple[str, bytes, bytes], target: str = "../../etc/passwd") -> bytes:
    """An archive of (name, type, content)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(content), target
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


class Place:
    """A folder in a folder, so that what gets out of it is seen."""

    def __enter__(self) -> Self:
        self.outside = Path(tempfile.mkdtemp())
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.outside)

    def unpack(self, packed: bytes, name: str = "m.tar", files_max: int = 100) -> dict[str, bytes]:
        archive = self.outside / name
        archive.write_bytes(packed)
        root = archives.unpack(archive, self.outside / "in", LIMIT_BYTES, files_max)
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }

    def escaped(self) -> list[Path]:
        inside = self.outside / "in"
        return [
            path
            for path in self.outside.rglob("*")
            if inside not in (path, *path.parents) and not path.name.startswith("m.")
        ]


@pytest.fixture
def place() -> Iterator[Place]:
    with Place() as place:
        yield place


@given(st.lists(st.tuples(NAMES, KINDS, st.binary(max_size=3)), max_size=5))
def test_no_tar_gets_out(members: list[tuple[str, bytes, bytes]]) -> None:
    with Place() as place:
        with contextlib.suppress(errors.LoadFailed):
            assert place.unpack(tarred(*members))
        assert place.escaped() == []
        assert not any(path.is_symlink() for path in place.outside.rglob("*"))


@given(st.dictionaries(NAMES.filter(bool), st.binary(max_size=3), max_size=5))
def test_no_zip_gets_out(files: dict[str, bytes]) -> None:
    with Place() as place:
        try:
            unpacked = place.unpack(zipped(files), "m.zip")
        except errors.LoadFailed:
            unpacked = {}
        assert place.escaped() == []
        assert set(unpacked.values()) <= set(files.values())


@given(
    st.sampled_from(["m.tar", "m.tgz", "m.zip"]),
    st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 255)), max_size=8),
)
def test_no_damage_is_more_than_a_failed_load(name: str, damages: list[tuple[int, int]]) -> None:
    plain = tarred(("a", tarfile.REGTYPE, b"model"), ("w/b", tarfile.REGTYPE, b"weights"))
    packed = bytearray(
        {"m.tar": plain, "m.tgz": gzip.compress(plain), "m.zip": zipped({"a": b"model"})}[name]
    )
    for position, value in damages:
        packed[position % len(packed)] = value
    with Place() as place:
        with contextlib.suppress(errors.LoadFailed):
            place.unpack(bytes(packed), name)
        assert place.escaped() == []


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a/../x", ".."])
def test_a_name_that_leads_out_is_refused(place: Place, name: str) -> None:
    for packed, archive in (
        (tarred((name, tarfile.REGTYPE, b"x")), "m.tar"),
        (zipped({name: b"x"}), "m.zip"),
    ):
        with pytest.raises(errors.LoadFailed, match="leads out"):
            place.unpack(packed, archive)
        shutil.rmtree(place.outside / "in")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
@pytest.mark.parametrize("target", ["/etc/passwd", "a"])
def test_links_and_devices_are_refused(place: Place, kind: bytes, target: str) -> None:
    with pytest.raises(errors.LoadFailed, match="'x' is a link, a device"):
        place.unpack(tarred(("a", tarfile.REGTYPE, b"x"), ("x", kind, b""), target=target))


def test_a_link_in_a_zip_is_refused(place: Place) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        link = zipfile.ZipInfo("x")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(errors.LoadFailed, match="'x' is a link"):
        place.unpack(packed.getvalue(), "m.zip")


@pytest.mark.parametrize("name", ["m.zip", "m.tgz"])
def test_a_bomb_is_refused_before_it_is_written(place: Place, name: str) -> None:
    zeros = bytes(LIMIT_BYTES + 1)
    packed = (
        zipped({"a": zeros})
        if name == "m.zip"
        else gzip.compress(tarred(("a", tarfile.REGTYPE, zeros)))
    )
    assert len(packed) < 10_000
    with pytest.raises(errors.LoadFailed, match=f"bigger than the limit of {LIMIT_BYTES} bytes"):
        place.unpack(packed, name)
    assert not (place.outside / "in" / "a").exists()


def test_a_header_that_is_a_bomb_is_refused(place: Place) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, archives.HEADER_BYTES_MAX + 1
    packed = gzip.compress(header.tobuf() + bytes(header.size))
    with pytest.raises(errors.LoadFailed, match="a header of more than"):
        place.unpack(packed, "m.tgz")


def test_too_many_or_too_deep_files_are_refused(place: Place) -> None:
    with pytest.raises(errors.LoadFailed, match="more than 3 files"):
        place.unpack(zipped({str(number): b"" for number in range(4)}), "m.zip", files_max=3)
    shutil.rmtree(place.outside / "in")
    with pytest.raises(errors.LoadFailed, match="folders that are more than"):
        place.unpack(zipped({"a/" * 40 + "x": b""}), "m.zip")


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_a_name_is_taken_once(place: Place, names: tuple[str, str]) -> None:
    with pytest.raises(
        errors.LoadFailed, match=r"is there twice|both a file and a folder|can't be read"
    ):
        place.unpack(tarred(*((name, tarfile.REGTYPE, b"x") for name in names)))


def test_a_single_folder_is_the_content(place: Place) -> None:
    packed = zipped(
        {
            "top/": b"",
            "top/a": b"1",
            "top/w/b": b"2",
            "__MACOSX/top/._a": b"x",
            "top/.DS_Store": b"x",
        }
    )
    assert place.unpack(packed, "m.zip") == {"a": b"1", "w/b": b"2"}


@pytest.mark.parametrize(
    ("packed", "name"),
    [(b"", "m.tar"), (b"no archive", "m.zip"), (b"\x1f\x8bno", "m.tgz"), (zipped({}), "m.zip")],
)
def test_a_file_that_is_no_archive_is_refused(place: Place, packed: bytes, name: str) -> None:
    with pytest.raises(errors.LoadFailed, match=r"can't be read as an archive|holds no files"):
        place.unpack(packed, name)
