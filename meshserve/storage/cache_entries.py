"""The content-addressed entries of a cache, in a folder that processes share.

A file is `<first two digits>/<hex digest>/<name>`, a folder `<first two digits>/<hex digest>`. A
file of several names has one inode and a hard link for each. An entry's modification time is its
last use. Entries appear and go by one rename, so that processes need no other agreement.
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
"""The name of every folder in its entry: a folder is its entry."""
AGED_S = 1.0
"""The time of last use of what can't be loaded, in seconds since the epoch."""
BLOCK_BYTES = 4096
TRIES = 5
"""Tries to move content in, because other processes may change the same entry meanwhile."""
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)  # Either may be told of a folder in the way (rename(2)).


class CacheEntries:
    """The entries of one cache, by digest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, digest: str, name: str) -> Path:
        """Return the path of the content under `name`."""
        return self._entry(digest) / name

    def _entry(self, digest: str) -> Path:
        hexes = digest.removeprefix("sha256:")
        return self._folder / hexes[:2] / hexes

    def age(self, digest: str) -> None:
        """Have the entry leave before all others. Raises OSError if it has left."""
        os.utime(self._entry(digest), (AGED_S, AGED_S))

    def is_aged(self, digest: str) -> bool:
        """Return whether the entry was not used since it was aged; False without an entry."""
        try:
            return self._entry(digest).stat().st_mtime == AGED_S
        except OSError:
            return False

    def touch(self, digest: str, name: str, size_bytes: int) -> bool:
        """Mark the entry as used now; return whether it has `name`, if a file then of this size."""
        # Two system calls, and strings instead of Path objects: every hit comes here.
        hexes = digest.removeprefix("sha256:")
        entry = f"{self._folder}/{hexes[:2]}/{hexes}"
        try:
            os.utime(entry)
            stat = os.lstat(f"{entry}/{name}")
        except OSError:
            return False
        return name == FOLDER or stat.st_size == size_bytes

    def has(self, digest: str, name: str, size_bytes: int) -> bool:
        """Return whether the whole content exists; mark it as used now, and name it `name` too."""
        # Sizes are compared because a crash of the machine may leave a short file behind.
        entry = self._entry(digest)
        try:
            os.utime(entry)
            return _add_name(entry, name) and _size_bytes(entry / name) == size_bytes
        except OSError:
            return False

    def adopt(self, folder: Path, digest: str, name: str) -> None:
        """Move the content at `folder / name` into the cache, in place of a damaged entry.

        Raises OSError if that fails, also because other processes change the entry all the time.
        """
        entry = self._entry(digest)
        size_bytes = _size_bytes(folder / name)
        content.seal(folder / name, content.files(folder / name))
        for _ in range(TRIES):
            # The rename keeps the time, by which a trim chooses.
            os.utime(folder)
            if _is_renamed(folder, entry) or self.has(digest, name, size_bytes):
                return
            # What is in the way is damaged, or `has` would have known it.
            self.remove(entry, folder.with_suffix(".broken"))
        raise OSError(errno.EBUSY, "others change the same entry again and again", str(entry))

    def remove(self, entry: Path, through: Path) -> None:
        """Rename an entry to `through` and delete it; do nothing if it does not exist.

        Processes that have its files open or mapped keep them.
        """
        try:
            entry.rename(through)
        except FileNotFoundError:
            return
        shutil.rmtree(through, ignore_errors=True)

    def remove_unused(self, seen: garbage_collection.CacheEntry, through: Path) -> bool:
        """Remove an entry unless it was used after it was seen; return whether this removed it."""
        # No system call renames only what is old: the use is compared before and after, and an
        # entry that was used in between is renamed back.
        if not _is_unused_since(seen, seen.path):
            return False
        try:
            seen.path.rename(through)
        except FileNotFoundError:
            return False
        is_gone = _is_unused_since(seen, through) or not _is_renamed(through, seen.path)
        shutil.rmtree(through, ignore_errors=True)
        return is_gone

    def scan(self) -> Iterator[list[garbage_collection.CacheEntry]]:
        """Yield all entries, in parts."""
        try:
            shards = sorted(self._folder.iterdir())
        except FileNotFoundError:
            return
        for shard in shards:
            yield [entry for path in shard.iterdir() if (entry := _describe(path)) is not None]


def name_in_cache(path: Path) -> str:
    """Return the name of a file or folder in its entry: its own, or `FOLDER`."""
    return FOLDER if path.is_dir() else path.name


def _is_unused_since(seen: garbage_collection.CacheEntry, path: Path) -> bool:
    try:
        return path.stat().st_mtime <= seen.used_s
    except FileNotFoundError:
        return False


def _is_renamed(folder: Path, entry: Path) -> bool:
    try:
        _rename(folder, entry)
    except OSError as error:
        if error.errno in OCCUPIED:
            return False
        raise
    return True


def _rename(folder: Path, entry: Path) -> None:
    try:
        folder.rename(entry)
    except FileNotFoundError:
        # The shard does not exist yet. Another process may create it and the entry meanwhile.
        entry.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(entry)


def _add_name(entry: Path, name: str) -> bool:
    """Link the entry's file to `name` as well; return whether the entry has a file."""
    if (entry / name).exists():
        return True
    first = next(entry.iterdir(), None)
    if first is not None:
        (entry / name).hardlink_to(first)
    return first is not None


def _size_bytes(path: Path) -> int:
    return content.count_bytes(path)


def _describe(entry: Path) -> garbage_collection.CacheEntry | None:
    """Return an entry's last use and its size in whole blocks; None if it can't be read."""
    try:
        used_s = entry.stat().st_mtime
        # By inode, because a file of several names takes its space once.
        names = {stat.st_ino: stat for _, stat in content.files(entry)}
    except (OSError, errors.LoadFailed):
        return None
    size_bytes = BLOCK_BYTES + sum(
        -(-stat.st_size // BLOCK_BYTES) * BLOCK_BYTES for stat in names.values()
    )
    return garbage_collection.CacheEntry(f"sha256:{entry.name}", entry, size_bytes, used_s)
