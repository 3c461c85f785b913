"""A cache on a disk that is full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshserve import errors
from meshserve.storage import artifact_store
from tests.storage.conftest import MIB, bytes_of, files_below


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_makes_room_of_what_nobody_uses_and_else_refuses(
    small_disk: Path, make_file: Callable[..., Path]
) -> None:
    store = artifact_store.ArtifactStore(
        str(small_disk), 100 * MIB, 100 * MIB, young_s=0.0, settle_s=0.0
    )
    files = [make_file(f"{name}.pt", os.urandom(3 * MIB)) for name in "abcd"]
    fetched = [await store.fetch(str(path), "") for path in files[:2]]
    store.hold(fetched[1])
    third = await store.fetch(str(files[2]), "")
    assert bytes_of(third) == files[2].read_bytes()
    assert files_below(fetched[0].path.parent) == []
    store.hold(third)
    with pytest.raises(errors.LoadFailed, match="disk of the artifact cache is full") as raised:
        await store.fetch(str(files[3]), "")
    assert raised.value.retry_after_s
    assert [bytes_of(artifact) for artifact in (fetched[1], third)] == [
        path.read_bytes() for path in files[1:3]
    ]
    await store.close()
