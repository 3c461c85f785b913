"""Copies in the cache that somebody has changed or removed: they are never loaded."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.storage import artifact_cache, artifact_store, content
from tests import support
from tests.storage.conftest import MIB, bytes_of


def damage(path: Path, how: str) -> None:
    """Change a file of the cache as a disk or another program may."""
    path.chmod(0o600)
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:] if how == "flipped" else content[:-1])
    path.chmod(0o400)


@pytest.mark.parametrize("how", ["flipped", "truncated"])
@pytest.mark.parametrize("name", ["a.onnx", "m/1/model.onnx", "packed.zip"])
async def test_a_damaged_copy_is_never_loaded(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path], name: str, how: str
) -> None:
    uri = make_file(name, zipped()) if name == "packed.zip" else make_file(name)
    uri = uri.parent if name == "m/1/model.onnx" else uri
    fetched = await artifacts.fetch(str(uri), "")
    for _ in range(2):
        damage(only_file(fetched), how)
        sound = await artifacts.fetch(str(uri), "", verifies=True)
        assert (sound.digest, only_file(sound).read_bytes()) == (fetched.digest, b"model")


@pytest.mark.parametrize("how", ["flipped", "truncated"])
@pytest.mark.parametrize("name", ["big.onnx", "m/1/model.onnx"])
async def test_a_big_copy_that_somebody_wrote_to_is_never_loaded(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path], name: str, how: str
) -> None:
    big = bytes(artifact_cache.DIGESTED_BYTES_MAX + 1)
    uri = make_file(name, big)
    fetched = await artifacts.fetch(str(uri.parent if "/" in name else uri), "")
    assert await artifacts.is_untouched(fetched)
    damage(only_file(fetched), how)
    assert not await artifacts.is_untouched(fetched)
    sound = await artifacts.fetch(str(uri.parent if "/" in name else uri), "", verifies=True)
    assert (sound.digest, only_file(sound).read_bytes()) == (fetched.digest, big)
    assert await artifacts.is_untouched(sound)


async def test_files_whose_times_alone_changed_are_verified_and_kept(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    path = str(make_file("big.onnx", bytes(artifact_cache.DIGESTED_BYTES_MAX + 1)))
    fetched = await artifacts.fetch(path, "")
    [(_, before)] = content.files(Path(fetched.path))
    # As a copy of an earlier release's cache has them.
    os.utime(fetched.path)
    assert not await artifacts.is_untouched(fetched)
    assert await artifacts.fetch(path, "", verifies=True) == fetched
    assert await artifacts.is_untouched(fetched)
    [(_, after)] = content.files(Path(fetched.path))
    assert after.st_ino == before.st_ino


async def test_files_that_are_removed_are_no_longer_untouched(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    fetched = await artifacts.fetch(str(make_file("a.onnx")), "")
    shutil.rmtree(Path(fetched.path).parent)
    assert not await artifacts.is_untouched(fetched)


def only_file(artifact: model_runtime.Artifact) -> Path:
    path = Path(artifact.path)
    return next(path.rglob("*.onnx")) if path.is_dir() else path


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model.onnx", b"model")
    return stream.getvalue()


async def test_a_damaged_copy_heals_under_another_name_and_in_another_process(
    tmp_path: Path, artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    fetched = await artifacts.fetch(str(make_file("a.onnx")), "")
    damage(Path(fetched.path), "flipped")
    other = artifact_store.ArtifactStore(str(tmp_path / "cache"), 100 * MIB, 10 * MIB, settle_s=0.0)
    for store, name in ((artifacts, "b.onnx"), (other, "a.onnx"), (other, "c.onnx")):
        sound = await store.fetch(str(make_file(name)), "", verifies=True)
        assert bytes_of(sound) == b"model"
    await other.close()


async def test_a_damaged_copy_that_can_t_be_dropped_is_a_failed_load(
    tmp_path: Path, artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    path = str(make_file("a.onnx"))
    damage(Path((await artifacts.fetch(path, "")).path), "flipped")
    seats = tmp_path / "cache" / "seats"
    # The trim after the fetch still uses a seat, and may make the folder again meanwhile.
    while not seats.is_file():
        shutil.rmtree(seats, ignore_errors=True)
        with contextlib.suppress(FileExistsError):
            seats.touch(exist_ok=False)
    with pytest.raises(errors.LoadFailed, match="the cache of artifacts fails"):
        await artifacts.fetch(path, "", verifies=True)
    seats.unlink()


async def test_what_can_t_be_loaded_leaves_the_cache_first(
    artifacts: artifact_store.ArtifactStore, make_file: Callable[..., Path]
) -> None:
    uri = str(make_file("a.onnx"))
    fetched = await artifacts.fetch(uri, "")
    artifacts.give_up(uri)
    entry = Path(fetched.path).parent
    await support.wait_until_async(lambda: entry.stat().st_mtime == 1.0, what="it is aged")
    damage(Path(fetched.path), "flipped")
    artifacts.give_up(uri)
    await support.wait_until_async(lambda: not entry.exists(), what="it is dropped")
    artifacts.give_up("no uri")
