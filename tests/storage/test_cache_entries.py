from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import pathlib

import pytest

from meshserve.storage import cache_entries, content
from tests.storage.conftest import sha

DIGEST = sha(b"model")


@pytest.fixture
def held(tmp_path):
    return cache_entries.CacheEntries(tmp_path / "objects")


@pytest.fixture
def made(tmp_path):
    numbers = itertools.count()

    def make(name: str, text: bytes = b"model"):
        folder = tmp_path / f"made{next(numbers)}"
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(text)
        return folder

    return make


def test_what_was_adopted_is_there(held, made):
    folder = made("a.onnx")
    held.adopt(folder, DIGEST, "a.onnx")
    assert held.path(DIGEST, "a.onnx").read_bytes() == b"model"
    assert not folder.exists()
    assert held.touch(DIGEST, "a.onnx")
    assert not held.touch(DIGEST, "b.onnx")
    assert not held.touch(sha(b"other"), "a.onnx")


@pytest.fixture
def seen(held, made):
    held.adopt(made("a.onnx"), DIGEST, "a.onnx")
    os.utime(held.path(DIGEST, "a.onnx").parent, (1.0, 1.0))
    ((entry,),) = held.entries()
    return entry


def test_what_is_unused_is_removed_once(held, seen, tmp_path):
    assert held.remove_unused(seen, tmp_path / "gone")
    assert not held.remove_unused(seen, tmp_path / "gone")
    assert not held.touch(DIGEST, "a.onnx")
    assert not (tmp_path / "gone").exists()


def test_what_was_used_since_it_was_seen_stays(held, seen, tmp_path):
    held.touch(DIGEST, "a.onnx")
    assert not held.remove_unused(seen, tmp_path / "gone")
    assert held.touch(DIGEST, "a.onnx")


class UsedLate(type(pathlib.Path())):
    """An entry that somebody marks as used just before it is renamed."""

    def rename(self, target):
        os.utime(self)
        return super().rename(target)


def test_what_is_used_while_it_is_removed_comes_back(held, seen, tmp_path):
    assert not held.remove_unused(
        dataclasses.replace(seen, path=UsedLate(seen.path)), tmp_path / "gone"
    )
    assert held.touch(DIGEST, "a.onnx")
    assert not (tmp_path / "gone").exists()


class MadeAnew(UsedLate):
    """One that somebody else makes again while it is away."""

    def rename(self, target):
        moved = super().rename(target)
        (self / "a.onnx").parent.mkdir(parents=True)
        (self / "a.onnx").write_bytes(b"model")
        return moved


def test_what_was_made_anew_meanwhile_is_not_doubled(held, seen, tmp_path):
    assert held.remove_unused(
        dataclasses.replace(seen, path=MadeAnew(seen.path)), tmp_path / "gone"
    )
    assert held.touch(DIGEST, "a.onnx")
    assert not (tmp_path / "gone").exists()


def test_another_name_is_another_link(held, made):
    held.adopt(made("a.onnx"), DIGEST, "a.onnx")
    assert held.has(DIGEST, "b.onnx", 5)
    assert held.path(DIGEST, "a.onnx").samefile(held.path(DIGEST, "b.onnx"))
    held.adopt(made("c.onnx"), DIGEST, "c.onnx")
    assert held.path(DIGEST, "a.onnx").samefile(held.path(DIGEST, "c.onnx"))


class Overtaken(type(pathlib.Path())):
    """A folder whose entry somebody else makes, shard and all, between a first rename that found no shard and the second."""

    def rename(self, target):
        if not target.parent.exists():
            (target / "a.onnx").parent.mkdir(parents=True)
            (target / "a.onnx").write_bytes(b"model")
            raise FileNotFoundError(errno.ENOENT, "no shard", str(target))
        return super().rename(target)


def test_an_entry_that_somebody_else_made_first_is_taken_for_it(held, made):
    folder = made("a.onnx")
    held.adopt(Overtaken(folder), DIGEST, "a.onnx")
    assert held.path(DIGEST, "a.onnx").read_bytes() == b"model"
    assert folder.exists()


def test_a_short_entry_is_not_there_and_is_replaced(held, made):
    held.adopt(made("a.onnx", b"mod"), DIGEST, "a.onnx")
    assert not held.has(DIGEST, "a.onnx", 5)
    held.adopt(made("a.onnx"), DIGEST, "a.onnx")
    assert held.path(DIGEST, "a.onnx").read_bytes() == b"model"


def test_an_open_file_outlives_its_entry(held, made, tmp_path):
    held.adopt(made("a.onnx"), DIGEST, "a.onnx")
    with held.path(DIGEST, "a.onnx").open("rb") as stream:
        for entry in next(held.entries()):
            held.remove(entry.path, tmp_path / "gone")
            held.remove(entry.path, tmp_path / "gone")
        assert stream.read() == b"model"
    assert not held.touch(DIGEST, "a.onnx")
    assert not (tmp_path / "gone").exists()


def test_entries_know_their_room_and_their_last_use(held, made):
    held.adopt(made("a.onnx", bytes(5000)), DIGEST, "a.onnx")
    held.has(DIGEST, "b.onnx", 5000)
    os.utime(held.path(DIGEST, "a.onnx").parent, (7, 7))
    assert [
        (each.digest, each.size_bytes, each.used_s) for part in held.entries() for each in part
    ] == [(DIGEST, 3 * 4096, 7.0)]
    held.touch(DIGEST, "a.onnx")
    assert next(held.entries())[0].used_s > 7


def test_an_empty_cache_has_no_entries(held):
    assert list(held.entries()) == []


def test_names_in_the_cache(make_file):
    path = make_file("m/a.onnx")
    assert (cache_entries.name_in_cache(path), cache_entries.name_in_cache(path.parent)) == (
        "a.onnx",
        cache_entries.FOLDER,
    )
    assert content.digest(path) == DIGEST
