"""The content-addressed folder: `<first two digits>/<hex digest>/<name>` for a file, `…/<hex digest>` for a folder.

A file that is asked for under several names has one inode and a hard link for each. An entry's modification time is its last use.
Entries appear and go by one rename, so that processes need not agree on more than the folder.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from meshserve import errors
from meshserve.storage import content, garbage_collection

FOLDER = ""
"""The name of all folders in their entries: a folder is its entry."""
BLOCK_BYTES = 4096
TRIES = 5
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)


class CacheEntries:
    """The entries of one cache, by digest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, digest: str, name: str) -> Path:
        """Where the content lies under `name`."""
        return self._entry(digest) / name

    def _entry(self, digest: str) -> Path:
        hexes = digest.removeprefix("sha256:")
        return self._folder / hexes[:2] / hexes

    def touch(self, digest: str, name: str) -> bool:
        """Mark the entry as used now; whether it is there under `name`. Two system calls, on plain text because it is asked at each hit."""
        hexes = digest.removeprefix("sha256:")
        entry = f"{self._folder}/{hexes[:2]}/{hexes}"
        try:
            os.utime(entry)
            os.lstat(f"{entry}/{name}")
        except OSError:
            return False
        return True

    def has(self, digest: str, name: str, size_bytes: int) -> bool:
        """Whether the whole content is there, marked as used now and under `name` from here on.

        Sizes are compared because a crash of the machine may leave a short file behind.
        """
        entry = self._entry(digest)
        try:
            os.utime(entry)
            return _named(entry, name) and _size_bytes(entry / name) == size_bytes
        except OSError:
            return False

    def adopt(self, made: Path, digest: str, name: str) -> None:
        """Take the content in that lies at `made / name`; a damaged entry of the same digest is replaced by it."""
        entry = self._entry(digest)
        size_bytes = _size_bytes(made / name)
        for _ in range(TRIES):
            os.utime(made)
            if _is_renamed(made, entry) or self.has(digest, name, size_bytes):
                return
            self.remove(entry, made.with_suffix(".broken"))
        raise OSError(errno.EBUSY, "others change the same entry again and again", str(entry))

    def remove(self, entry: Path, through: Path) -> None:
        """Take an entry out by renaming it to `through`, which is then deleted. No error where it is not there any more.

        Whoever has its files open or mapped keeps them.
        """
        try:
            entry.rename(through)
        except FileNotFoundError:
            return
        shutil.rmtree(through, ignore_errors=True)

    def remove_unused(self, seen: garbage_collection.CacheEntry, through: Path) -> bool:
        """Take an entry out as `remove` does, unless somebody has used it since it was seen; whether it is gone by this.

        Use is looked at before and after: no system call renames only what is old. What somebody marks in between comes back.
        """
        if not _is_unused_since(seen, seen.path):
            return False
        try:
            seen.path.rename(through)
        except FileNotFoundError:
            return False
        is_gone = _is_unused_since(seen, through) or not _is_renamed(through, seen.path)
        shutil.rmtree(through, ignore_errors=True)
        return is_gone

    def entries(self) -> Iterator[list[garbage_collection.CacheEntry]]:
        """All entries, in parts."""
        try:
            shards = sorted(self._folder.iterdir())
        except FileNotFoundError:
            return
        for shard in shards:
            yield [found for path in shard.iterdir() if (found := _seen(path)) is not None]


def name_in_cache(path: Path) -> str:
    """The name under which a file or folder lies in its entry: its own, or the same one for all folders."""
    return FOLDER if path.is_dir() else path.name


def _is_unused_since(seen: garbage_collection.CacheEntry, path: Path) -> bool:
    try:
        return path.stat().st_mtime <= seen.used_s
    except FileNotFoundError:
        return False


def _is_renamed(made: Path, entry: Path) -> bool:
    try:
        _rename(made, entry)
    except OSError as error:
        if error.errno in OCCUPIED:
            return False
        raise
    return True


def _rename(made: Path, entry: Path) -> None:
    """Into a shard that may not be there yet. Another process may make it, and the entry too, between the two tries."""
    try:
        made.rename(entry)
    except FileNotFoundError:
        entry.parent.mkdir(parents=True, exist_ok=True)
        made.rename(entry)


def _named(entry: Path, name: str) -> bool:
    """Have the entry's file go by `name` as well."""
    if (entry / name).exists():
        return True
    first = next(entry.iterdir(), None)
    if first is not None:
        (entry / name).hardlink_to(first)
    return first is not None


def _size_bytes(path: Path) -> int:
    return sum(stat.st_size for _, stat in content.files(path))


def _seen(entry: Path) -> garbage_collection.CacheEntry | None:
    """What trimming must know of an entry: its size in whole blocks, and when it was used."""
    try:
        used_s = entry.stat().st_mtime
        names = {stat.st_ino: stat for _, stat in content.files(entry)}
    except (OSError, errors.LoadFailed):
        return None
    size_bytes = BLOCK_BYTES + sum(
        -(-stat.st_size // BLOCK_BYTES) * BLOCK_BYTES for stat in names.values()
    )
    return garbage_collection.CacheEntry(f"sha256:{entry.name}", entry, size_bytes, used_s)
