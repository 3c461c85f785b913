"""Keep models that come as bytes in a load request, in a folder named by their digest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from meshserve import errors

# Linux's own limit for a name. For a whole path it is 4,096 bytes.
PART_BYTES_MAX = 255
PATH_BYTES_MAX = 2048

LEAVING = "leaving-"
"""The beginning of the name of a folder that is being removed."""
DIGEST = re.compile("[0-9a-f]{64}")
KEPT = re.compile(rf"({LEAVING})?{DIGEST.pattern}")


def keep(folder: str, files: Mapping[str, bytes]) -> dict[str, Path]:
    """Write files named `<version>/<path>` and return the folder of each version.

    Files that were kept before are not written again. Raises InvalidRequest for a name outside a
    version's folder, and for names that can't be side by side.
    """
    contents = {parse_name(name): content for name, content in files.items()}
    for path in contents:
        both = next((parent for parent in path.parents if parent in contents), None)
        if both is not None:
            raise errors.InvalidRequest(f"{str(both)!r} can't be both a file and a folder of files")
    target = Path(folder) / _digest(contents)
    try:
        os.utime(target)  # it is in use from now on, and not removed
    except FileNotFoundError:
        _write(target, contents)
    return {version: target / version for version in sorted({path.parts[0] for path in contents})}


def kept(folder: Path) -> list[str]:
    """Return the names of the folders that `keep` has written, and of half removed ones."""
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return [name for name in names if KEPT.fullmatch(name)]


def remove(folder: Path, name: str, before_s: float) -> None:
    """Remove a folder of `kept` unless it was kept again after `before_s`, in seconds of the epoch.

    Raises OSError.
    """
    leaving = folder / f"{LEAVING}{name.removeprefix(LEAVING)}"
    # Renamed first: a request that keeps the same files from now on writes them anew.
    (folder / name).rename(leaving)
    if leaving.stat().st_mtime > before_s:
        # It was kept again before the rename.
        with contextlib.suppress(OSError):
            leaving.rename(folder / name)
            return
    shutil.rmtree(leaving)


def parse_name(name: str) -> PurePosixPath:
    """Return a file's relative path. Raises InvalidRequest for one that can't be there."""
    path = PurePosixPath(name)
    is_inside = (
        not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name
    )
    if not is_inside or len(path.parts) <= 1:
        raise errors.InvalidRequest(
            f"file {name!r} must be named as <version>/<path inside the model>"
        )
    # In bytes, as Linux counts them; the folder of uploads stands before the path.
    if len(os.fsencode(name)) > PATH_BYTES_MAX or any(
        len(os.fsencode(part)) > PART_BYTES_MAX for part in path.parts
    ):
        raise errors.InvalidRequest(
            f"the name of a file is too long: {PART_BYTES_MAX} bytes for each part and "
            f"{PATH_BYTES_MAX} in all at most"
        )
    return path


def _digest(contents: Mapping[PurePosixPath, bytes]) -> str:
    digest = hashlib.sha256()
    # Sorted, because the order in which the files came must not change the digest.
    for path in sorted(contents):
        # With sizes, so that the end of one file can't be taken for the beginning of the next.
        digest.update(f"{path}\0{len(contents[path])}\0".encode())
        digest.update(contents[path])
    return digest.hexdigest()


def _write(folder: Path, contents: Mapping[PurePosixPath, bytes]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The files are written elsewhere and renamed, so that the target is always complete.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        # Below the target's own parent, because a rename works within one file system alone.
        ready = Path(scratch) / "files"
        for path, content in contents.items():
            file = ready / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        try:
            os.rename(ready, folder)  # noqa: PTH104 - for its atomicity
        except OSError:
            # A concurrent request may have written the same files first.
            if not folder.exists():
                raise
