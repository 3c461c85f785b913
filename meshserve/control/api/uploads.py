"""Models that come as bytes in a load request: their files are kept under the state directory, by content."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from meshserve import errors


def keep(folder: str, files: Mapping[str, bytes]) -> dict[str, Path]:
    """Write `<version>/<path>` files, the same ones once; returns each version's folder. Raises InvalidRequest for a bad path."""
    contents = {checked(name): content for name, content in files.items()}
    kept = Path(folder) / _digest(contents)
    if not kept.exists():
        _write(kept, contents)
    return {version: kept / version for version in sorted({path.parts[0] for path in contents})}


def checked(name: str) -> PurePosixPath:
    """A file's path inside its model. Raises InvalidRequest where it would lie elsewhere, or in no version."""
    path = PurePosixPath(name)
    is_inside = (
        not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name
    )
    if not is_inside or len(path.parts) <= 1:
        raise errors.InvalidRequest(
            f"file {name!r} must be named as <version>/<path inside the model>"
        )
    return path


def _digest(contents: Mapping[PurePosixPath, bytes]) -> str:
    whole = hashlib.sha256()
    for path in sorted(contents):
        whole.update(f"{path}\0{len(contents[path])}\0".encode())
        whole.update(contents[path])
    return whole.hexdigest()


def _write(kept: Path, contents: Mapping[PurePosixPath, bytes]) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
        ready = Path(scratch) / "files"
        for path, content in contents.items():
            file = ready / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        try:
            os.rename(ready, kept)  # noqa: PTH104 - it is the atomicity of os.rename that is meant
        except OSError:
            # Somebody else kept the same files meanwhile: they are as good as these.
            if not kept.exists():
                raise
