from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from meshserve import errors
from meshserve.storage import (
    artifact_cache,
    cache_entries,
    content,
    local_source,
    model_uri,
    source_index,
)
from tests.storage.conftest import MIB, sha
from tests.storage.test_archives import zipped


def bring(disk: artifact_cache.ArtifactCache, path: Path) -> Any:
    return local_source.bring(model_uri.parse(str(path)), disk)


def test_a_file_is_copied_and_known_by_its_stamp(
    disk: artifact_cache.ArtifactCache, make_file: Callable[..., Path]
) -> None:
    path = make_file("a.onnx")
    known = bring(disk, path)
    assert (known.digest, known.stamp) == (sha(b"model"), content.stamp(path).text)
    assert local_source.is_current(model_uri.parse(str(path)), known)
    path.write_bytes(b"other")
    assert not local_source.is_current(model_uri.parse(str(path)), known)
    path.unlink()
    assert not local_source.is_current(model_uri.parse(str(path)), known)


def test_a_time_that_may_come_again_is_not_trusted(
    disk: artifact_cache.ArtifactCache, make_file: Callable[..., Path]
) -> None:
    path = make_file("a.onnx", is_old=False)
    known = bring(disk, path)
    assert known.stamp == ""
    assert not local_source.is_current(model_uri.parse(str(path)), known)


class FullDisk(artifact_cache.ArtifactCache):
    def temp(self) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")


class Meddler(artifact_cache.ArtifactCache):
    """Writes to the source whenever a copy of it is looked for."""

    source: Path

    def has(self, known: source_index.KnownSource) -> bool:
        self.source.write_bytes(known.digest.encode())
        return super().has(known)


def test_big_files_and_archives_are_read_once_for_all_processes(
    disk: artifact_cache.ArtifactCache, make_file: Callable[..., Path]
) -> None:
    paths = (
        make_file("m.zip", zipped({"a.onnx": b"model"})),
        make_file("big.pt", bytes(2 * MIB)),
        make_file("tiny.onnx"),
    )
    known = [bring(disk, path) for path in paths]
    assert [disk.find_source(str(path)) for path in paths] == [*known[:2], None]
    assert [bring(disk, path) for path in paths] == known


def test_an_archive_has_the_checksum_of_its_own_bytes(
    disk: artifact_cache.ArtifactCache, make_file: Callable[..., Path]
) -> None:
    packed = zipped({"a.onnx": b"model"})
    known = bring(disk, make_file("m.zip", packed))
    assert (known.checksum, known.name) == (sha(packed), cache_entries.FOLDER)


def test_a_full_disk_leaves_files_where_they_are(
    tmp_path: Path, make_file: Callable[..., Path]
) -> None:
    path = make_file("a.onnx")
    assert bring(FullDisk(tmp_path / "cache", MIB, MIB, 0.0), path).place == str(path)


def test_a_file_that_changes_at_each_read_is_refused(
    tmp_path: Path, make_file: Callable[..., Path]
) -> None:
    meddler = Meddler(tmp_path / "cache", MIB, MIB, 0.0)
    meddler.source = make_file("a.onnx")
    meddler.slot.take()
    with pytest.raises(errors.LoadFailed, match="is being written") as raised:
        bring(meddler, meddler.source)
    assert raised.value.retry_after_s
    meddler.slot.give_back()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(), "there is no such file"),
        (PermissionError(), "may not be read by the user"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_the_systems_errors_in_words(error: OSError, words: str) -> None:
    assert words in local_source.reason(error)
