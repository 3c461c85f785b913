from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshserve import errors
from meshserve.core.values import llm_spec
from meshserve.storage import llm_weights

BIG = 8 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(BIG))
    return tmp_path


async def identity(folder: Path) -> llm_spec.Weights:
    seen = await llm_weights.identify(str(folder))
    assert seen is not None
    return seen


async def test_the_same_files_are_the_same_weights(folder: Path) -> None:
    before = await identity(folder)
    (folder / "README.md").write_text("corrected")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "lock").write_text("x")
    assert await identity(folder) == before


@pytest.mark.parametrize("change", ["grown", "bytes", "time", "added", "renamed", "removed"])
async def test_any_change_of_the_files_is_another_model(folder: Path, change: str) -> None:
    before, file = await identity(folder), folder / "model.safetensors"
    times = file.stat()
    match change:
        case "grown":
            file.write_bytes(bytes(BIG + 1))
        case "bytes":
            file.write_bytes(b"\1" * BIG)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        case "time":
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
        case "added":
            (folder / "tokenizer.json").write_text("{}")
        case "renamed":
            file.rename(folder / "model-1.safetensors")
        case "removed":
            file.unlink()
    after = await identity(folder)
    assert not before.is_same(after)
    assert (before.content == after.content) == (change == "time")
    with pytest.raises(errors.Unloadable, match="have changed since"):
        await llm_weights.check(str(folder), "", before)
    await llm_weights.check(str(folder), "", after)


async def test_a_copy_on_another_machine_is_the_same(folder: Path) -> None:
    seen = await identity(folder)
    await llm_weights.check(str(folder), "", seen._replace(host="elsewhere", times="others"))


async def test_weights_that_are_elsewhere_are_unknown(folder: Path) -> None:
    assert await llm_weights.identify("/no/such/folder") is None
    assert await llm_weights.identify("ftp://a/b") is None
    await llm_weights.check("/no/such/folder", "", await identity(folder))
    await llm_weights.check(str(folder), "", None)


async def test_a_commit_is_not_checked_again(folder: Path) -> None:
    commit = llm_spec.Weights("commit c0ffee")
    await llm_weights.check(str(folder), "", commit)
    assert llm_weights.commit_of(commit) == "c0ffee"
    assert llm_weights.commit_of(await identity(folder)) == llm_weights.commit_of(None) == ""
