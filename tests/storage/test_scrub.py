from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from meshserve.storage import artifact_cache, artifact_store, scrub
from tests.storage.conftest import bytes_of

BIG = bytes(artifact_cache.DIGESTED_BYTES_MAX + 1)
FAST = float("inf")


def flip(path: Path, at: int = 7) -> None:
    """Change one byte of a file, and neither its size nor its times."""
    before = path.stat()
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    path.chmod(0o400)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["a.onnx", "folder/w/weights.bin"])
async def test_a_big_entry_that_has_changed_is_removed_and_fetched_again(
    tmp_path: Path,
    artifacts: artifact_store.ArtifactStore,
    make_file: Callable[..., Path],
    name: str,
) -> None:
    source = make_file(name, BIG)
    uri = str(source if name == "a.onnx" else source.parent.parent)
    fetched = await artifacts.fetch(uri, "")
    cache = artifact_cache.ArtifactCache(tmp_path / "cache", 1 << 30, 1 << 30, 0.0)
    cache.open()
    assert scrub.scrub(cache, FAST) == 0
    flip(Path(fetched.path) if name == "a.onnx" else Path(fetched.path) / "w" / "weights.bin")
    assert scrub.scrub(cache, FAST) == 1
    again = await artifacts.fetch(uri, "")
    assert again.digest == fetched.digest
    assert scrub.scrub(cache, FAST) == 0
    cache.slot.give_back()


async def test_names_of_one_file_are_sound(
    tmp_path: Path, artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    for name in ("a.onnx", "b.onnx"):
        assert bytes_of(await artifacts.fetch(str(make_file(name, BIG)), "")) == BIG
    cache = artifact_cache.ArtifactCache(tmp_path / "cache", 1 << 30, 1 << 30, 0.0)
    assert scrub.scrub(cache, FAST) == 0


def test_one_process_makes_a_pass_and_not_too_often(
    disk: artifact_cache.ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[float] = []

    def note(_: artifact_cache.ArtifactCache, bytes_per_s: float) -> int:
        passes.append(bytes_per_s)
        return 0

    monkeypatch.setattr(scrub, "scrub", note)
    for _ in range(2):
        assert scrub.scrub_if_due(disk, 1.0) == 0
    assert passes == [1.0]
    os.utime(disk.folder / "scrubbed", (1.0, 1.0))
    with (disk.folder / "scrubbed").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        scrub.scrub_if_due(disk, 2.0)
        assert passes == [1.0]
    scrub.scrub_if_due(disk, 3.0)
    assert passes == [1.0, 3.0]
