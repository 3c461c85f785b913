from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from meshserve import errors
from meshserve.storage import artifact_cache, cache_entries, source_index
from tests.storage.conftest import MIB, age, sha

KNOWN = source_index.KnownSource("stamp", sha(b"model"), sha(b"model"), 5, "a.onnx")


@pytest.fixture
def taken(disk: artifact_cache.ArtifactCache) -> artifact_cache.ArtifactCache:
    with disk.temp() as folder:
        (folder / "half").write_bytes(b"model")
        assert disk.take(folder / "half", "a.onnx") == (KNOWN.digest, 5)
    return disk


def test_taken_content_is_an_artifact(taken: artifact_cache.ArtifactCache) -> None:
    artifact = taken.artifact(KNOWN)
    assert artifact is not None
    assert (artifact.digest, artifact.size_bytes, artifact.path.name) == (KNOWN.digest, 5, "a.onnx")


def test_a_source_is_known_only_with_its_content(taken: artifact_cache.ArtifactCache) -> None:
    taken.remember_source("/a", KNOWN)
    assert taken.find_source("/a") == KNOWN
    age(taken.entries.path(KNOWN.digest, "a.onnx").parent)
    other = source_index.KnownSource("stamp", sha(b"other"), sha(b"other"), 5, "a.onnx")
    taken.remember_source("/b", other)
    assert taken.find_source("/b") is None
    assert taken.artifact(other) is None


def test_trimming_returns_the_bytes_removed(
    tmp_path: Path, taken: artifact_cache.ArtifactCache
) -> None:
    small = artifact_cache.ArtifactCache(tmp_path / "cache", 100, MIB, young_s=0.0)
    small.slot.take()
    age(taken.entries.path(KNOWN.digest, "a.onnx").parent)
    assert small.trim() == 2 * cache_entries.BLOCK_BYTES
    assert small.trim() == 0
    assert small.artifact(KNOWN) is None
    small.slot.give_back()


def test_a_broken_archive_is_named(
    disk: artifact_cache.ArtifactCache, make_file: Callable[..., Path]
) -> None:
    with pytest.raises(errors.LoadFailed, match=r"^/shown: it can't be read as an archive"):
        disk.take_archive(make_file("m.zip", b"no archive"), "/shown")


def test_the_newest_other_content_that_may_load_is_the_earlier_one(
    disk: artifact_cache.ArtifactCache, make_file: Callable[..., Path]
) -> None:
    for content in (b"first", b"good", b"broken", b"now"):
        digest, size_bytes = disk.take(make_file("a.onnx", content), "a.onnx")
        stamp = content.decode()
        disk.remember_source(
            "/a", source_index.KnownSource(stamp, digest, digest, size_bytes, "a.onnx")
        )
    disk.entries.age(sha(b"broken"))
    earlier = disk.find_earlier("/a", "now")
    assert earlier is not None
    assert earlier.stamp == "good"
    disk.drop(sha(b"good"))
    earlier = disk.find_earlier("/a", "now")
    assert earlier is not None
    assert earlier.stamp == "first"
    disk.drop(sha(b"first"))
    assert disk.find_earlier("/a", "now") is None
    assert disk.find_earlier("/b", "now") is None
