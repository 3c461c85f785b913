from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshserve.storage import cache_entries, content, garbage_collection
from tests.storage.conftest import sha

DIGEST = sha(b"model")


@pytest.fixture
def entries(tmp_path: Path) -> cache_entries.CacheEntries:
    return cache_entries.CacheEntries(tmp_path / "objects")


@pytest.fixture
def make_content(tmp_path: Path) -> Callable[..., Any]:
    numbers = itertools.count()

    def make(name: str, text: bytes = b"model") -> Path:
        folder = tmp_path / f"content{next(numbers)}"
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(text)
        return folder

    return make


def test_adopted_content_is_found(
    entries: cache_entries.CacheEntries, make_content: Callable[..., Any]
) -> None:
    folder = make_content("a.onnx")
    entries.adopt(folder, DIGEST, "a.onnx")
    assert entries.path(DIGEST, "a.onnx").read_bytes() == b"model"
    assert not folder.exists()
    assert entries.touch(DIGEST, "a.onnx", 5)
    assert not entries.touch(DIGEST, "a.onnx", 4)
    assert not entries.touch(DIGEST, "b.onnx", 5)
    assert not entries.touch(sha(b"other"), "a.onnx", 5)


@pytest.fixture
def seen(
    entries: cache_entries.CacheEntries, make_content: Callable[..., Any]
) -> garbage_collection.CacheEntry:
    entries.adopt(make_content("a.onnx"), DIGEST, "a.onnx")
    os.utime(entries.path(DIGEST, "a.onnx").parent, (1.0, 1.0))
    ((entry,),) = entries.scan()
    return entry


def test_an_unused_entry_is_removed_once(
    entries: cache_entries.CacheEntries, seen: garbage_collection.CacheEntry, tmp_path: Path
) -> None:
    assert entries.remove_unused(seen, tmp_path / "gone")
    assert not entries.remove_unused(seen, tmp_path / "gone")
    assert not entries.touch(DIGEST, "a.onnx", 5)
    assert not (tmp_path / "gone").exists()


def test_an_entry_used_since_it_was_seen_stays(
    entries: cache_entries.CacheEntries, seen: garbage_collection.CacheEntry, tmp_path: Path
) -> None:
    entries.touch(DIGEST, "a.onnx", 5)
    assert not entries.remove_unused(seen, tmp_path / "gone")
    assert entries.touch(DIGEST, "a.onnx", 5)


class UsedLate(pathlib.PosixPath):
    """An entry that is marked as used just before it is renamed."""

    def rename(self, target: Any) -> Any:
        os.utime(self)
        return super().rename(target)


def test_an_entry_used_while_it_is_removed_comes_back(
    entries: cache_entries.CacheEntries, seen: garbage_collection.CacheEntry, tmp_path: Path
) -> None:
    assert not entries.remove_unused(
        dataclasses.replace(seen, path=UsedLate(seen.path)), tmp_path / "gone"
    )
    assert entries.touch(DIGEST, "a.onnx", 5)
    assert not (tmp_path / "gone").exists()


class MadeAnew(UsedLate):
    """An entry that another process creates again while it is renamed."""

    def rename(self, target: Any) -> Any:
        moved = super().rename(target)
        (self / "a.onnx").parent.mkdir(parents=True)
        (self / "a.onnx").write_bytes(b"model")
        return moved


def test_an_entry_created_again_meanwhile_is_not_doubled(
    entries: cache_entries.CacheEntries, seen: garbage_collection.CacheEntry, tmp_path: Path
) -> None:
    assert entries.remove_unused(
        dataclasses.replace(seen, path=MadeAnew(seen.path)), tmp_path / "gone"
    )
    assert entries.touch(DIGEST, "a.onnx", 5)
    assert not (tmp_path / "gone").exists()


def test_another_name_is_another_link(
    entries: cache_entries.CacheEntries, make_content: Callable[..., Any]
) -> None:
    entries.adopt(make_content("a.onnx"), DIGEST, "a.onnx")
    assert entries.has(DIGEST, "b.onnx", 5)
    assert entries.path(DIGEST, "a.onnx").samefile(entries.path(DIGEST, "b.onnx"))
    entries.adopt(make_content("c.onnx"), DIGEST, "c.onnx")
    assert entries.path(DIGEST, "a.onnx").samefile(entries.path(DIGEST, "c.onnx"))


class Overtaken(pathlib.PosixPath):
    """A folder whose entry another process creates, with its shard, just before the rename."""

    def rename(self, target: Any) -> Any:
        if not target.parent.exists():
            (target / "a.onnx").parent.mkdir(parents=True)
            (target / "a.onnx").write_bytes(b"model")
            raise FileNotFoundError(errno.ENOENT, "no shard", str(target))
        return super().rename(target)


def test_an_entry_that_another_process_created_first_is_used(
    entries: cache_entries.CacheEntries, make_content: Callable[..., Any]
) -> None:
    folder = make_content("a.onnx")
    entries.adopt(Overtaken(folder), DIGEST, "a.onnx")
    assert entries.path(DIGEST, "a.onnx").read_bytes() == b"model"
    assert folder.exists()


def test_a_short_entry_is_replaced(
    entries: cache_entries.CacheEntries, make_content: Callable[..., Any]
) -> None:
    entries.adopt(make_content("a.onnx", b"mod"), DIGEST, "a.onnx")
    assert not entries.has(DIGEST, "a.onnx", 5)
    entries.adopt(make_content("a.onnx"), DIGEST, "a.onnx")
    assert entries.path(DIGEST, "a.onnx").read_bytes() == b"model"


def test_an_open_file_outlives_its_entry(
    entries: cache_entries.CacheEntries, make_content: Callable[..., Any], tmp_path: Path
) -> None:
    entries.adopt(make_content("a.onnx"), DIGEST, "a.onnx")
    with entries.path(DIGEST, "a.onnx").open("rb") as stream:
        for entry in next(entries.scan()):
            entries.remove(entry.path, tmp_path / "gone")
            entries.remove(entry.path, tmp_path / "gone")
        assert stream.read() == b"model"
    assert not entries.touch(DIGEST, "a.onnx", 5)
    assert not (tmp_path / "gone").exists()


def test_entries_have_a_size_on_disk_and_a_last_use(
    entries: cache_entries.CacheEntries, make_content: Callable[..., Any]
) -> None:
    entries.adopt(make_content("a.onnx", bytes(5000)), DIGEST, "a.onnx")
    entries.has(DIGEST, "b.onnx", 5000)
    os.utime(entries.path(DIGEST, "a.onnx").parent, (7, 7))
    assert [
        (entry.digest, entry.size_bytes, entry.used_s) for part in entries.scan() for entry in part
    ] == [(DIGEST, 3 * 4096, 7.0)]
    entries.touch(DIGEST, "a.onnx", 5000)
    assert next(entries.scan())[0].used_s > 7


def test_an_empty_cache_has_no_entries(entries: cache_entries.CacheEntries) -> None:
    assert list(entries.scan()) == []


def test_names_in_the_cache(make_file: Callable[..., Path]) -> None:
    path = make_file("m/a.onnx")
    assert (cache_entries.name_in_cache(path), cache_entries.name_in_cache(path.parent)) == (
        "a.onnx",
        cache_entries.FOLDER,
    )
    assert content.digest(path) == DIGEST
