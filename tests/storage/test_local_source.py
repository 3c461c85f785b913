from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshserve import errors
from meshserve.storage import (
    artifact_cache,
    artifact_store,
    cache_entries,
    content,
    local_source,
    model_uri,
    source_index,
)
from tests.storage.conftest import MIB, bytes_of, sha
from tests.storage.test_archives import zipped


def bring(disk: artifact_cache.ArtifactCache, path: Path) -> Any:
    return local_source.bring(model_uri.parse(str(path)), disk, settle_ns=0)


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


# What a declaration means


def declared(path: Path) -> model_uri.ModelUri:
    return model_uri.parse(model_uri.stamped(str(path), content.stamp(path).text))


def test_the_declared_content_comes_from_the_cache_while_another_is_there(
    disk: artifact_cache.ArtifactCache, make_file: Callable[..., Path]
) -> None:
    path = make_file("a.onnx", is_old=False)
    source = declared(path)
    known = local_source.bring(source, disk)
    assert known.digest == sha(b"model")
    for change in (lambda: path.write_bytes(b"ha"), path.unlink):
        change()
        assert local_source.bring(source, disk) == known
        assert local_source.is_current(source, known)
    path.write_bytes(b"other")
    newer = declared(path)
    assert not local_source.is_current(newer, known)
    assert local_source.bring(newer, disk).digest == sha(b"other")
    assert local_source.bring(source, disk) == known


def test_a_declared_content_that_is_gone_is_refused_and_not_replaced(
    disk: artifact_cache.ArtifactCache, make_file: Callable[..., Path]
) -> None:
    path = make_file("a.onnx")
    source = declared(path)
    path.write_bytes(b"other")
    with pytest.raises(local_source.NotSettled, match="is being written"):
        local_source.bring(source, disk)
    with pytest.raises(local_source.NotSettled, match="has changed since it was declared"):
        local_source.bring(source, disk, settle_ns=0)


def test_a_declaration_of_another_machine_means_the_settled_content(
    disk: artifact_cache.ArtifactCache, make_file: Callable[..., Path]
) -> None:
    path = make_file("a.onnx")
    for suffix in ("", "-0000" if model_uri.NODE != "0000" else "-1111"):
        source = model_uri.parse(f"file://{path}#0123456789abcdef{suffix}")
        with pytest.raises(local_source.NotSettled, match="is being written"):
            local_source.bring(source, disk, settle_ns=60 * 10**9)
        assert local_source.bring(source, disk, settle_ns=0).digest == sha(b"model")


def test_half_of_a_file_is_never_brought(
    disk: artifact_cache.ArtifactCache, make_file: Callable[..., Path]
) -> None:
    path = make_file("a.onnx")
    source = declared(path)
    with path.open("r+b") as writing:
        writing.write(b"ot")
        writing.flush()
        for uri in (source, model_uri.parse(str(path))):
            with pytest.raises(local_source.NotSettled, match="is being written"):
                local_source.bring(uri, disk, settle_ns=0)


@pytest.mark.parametrize("name", ["m.onnx", "m.zip", "folder"])
def test_a_path_that_became_a_link_out_of_its_root_is_not_read(
    disk: artifact_cache.ArtifactCache, make_file: Callable[..., Path], name: str
) -> None:
    root = make_file("root/first.onnx").parent
    outside = make_file("outside/m.onnx")
    make_file("outside/m.zip", zipped({"m.onnx": b"secret"}))
    (root / name).symlink_to(outside.parent if name == "folder" else outside.with_name(name))
    source = model_uri.parse(str(root / name))
    inside = dataclasses.replace(source, file_root=str(root.parent))
    assert local_source.bring(inside, disk, 0)
    leaving = dataclasses.replace(source, file_root=str(root))
    with pytest.raises(errors.LoadFailed, match=r"leads out of|out of the model's folder"):
        local_source.bring(dataclasses.replace(leaving, uri="/another"), disk, 0)
    with pytest.raises(errors.LoadFailed, match="leads out of"):
        local_source.check_inside(leaving)
    local_source.check_inside(source)


async def test_a_cached_file_is_not_given_once_its_path_leaves_the_root(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    file, secret = make_file("root/a.onnx"), make_file("secret.onnx", b"other")
    root = str(file.parent)
    fetched = await artifacts.fetch(str(file), "", file_root=root)
    assert bytes_of(fetched) == b"model"
    file.unlink()
    file.symlink_to(secret)
    # Others may read the file, and it is in the cache then.
    assert bytes_of(await artifacts.fetch(str(file), "")) == b"other"
    for verifies in (False, True):
        with pytest.raises(errors.LoadFailed, match="leads out of"):
            await artifacts.fetch(str(file), "", verifies=verifies, file_root=root)
