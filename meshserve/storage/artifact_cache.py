"""A node's cache on disk, shared by its processes: entries, an index of sources, and slots."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.storage import (
    archives,
    cache_entries,
    content,
    garbage_collection,
    process_slot,
    source_index,
)

logger = logging.getLogger(__name__)

DIGESTED_BYTES_MAX = 256 << 10
"""Artifacts up to this size are hashed before each load: 0.14 ms, 5 % of a cold load of 2.8 ms.

Bigger ones are hashed if a file's time tells that somebody has written to it, and by `scrub`:
their load would take a tenth longer.
"""


class ArtifactCache:
    """The cache on disk. Methods block; any thread may call them, but not those of `slot`."""

    def __init__(
        self, folder: Path, size_bytes_max: int, artifact_bytes_max: int, young_s: float
    ) -> None:
        self.folder = folder
        self.size_bytes_max = size_bytes_max
        self.artifact_bytes_max = artifact_bytes_max
        self.entries = cache_entries.CacheEntries(folder / "objects")
        self.slot = process_slot.ProcessSlot(folder / "seats")
        self._index = source_index.SourceIndex(folder / "sources")
        self._young_s = young_s

    def open(self) -> None:
        """Make the cache and this process's slot in it, unless they are there.

        Nobody else may read the cache: it has copies of what other users may not read.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # `mkdir` does not change the mode of a folder that exists.
        if self.folder.stat().st_mode & 0o077:
            self.folder.chmod(0o700)
        self.slot.take()

    def temp(self) -> AbstractContextManager[Path]:
        """Return a context with a new folder for unfinished files, which is removed at its end."""
        return self.slot.temp()

    def has(self, known: source_index.KnownSource) -> bool:
        """Return whether the whole content is in the cache."""
        return self.entries.has(known.digest, known.name, known.size_bytes)

    def artifact(
        self, known: source_index.KnownSource, previous: model_runtime.Artifact | None = None
    ) -> model_runtime.Artifact | None:
        """Return the artifact and mark it as used now; None if it left the cache.

        `previous` is what this returned for the same `known` before, and is returned again, because
        building a Path takes longer than all the rest.
        """
        if not self.entries.touch(known.digest, known.name, known.size_bytes):
            return None
        return previous or model_runtime.Artifact(
            self.entries.path(known.digest, known.name),
            known.digest,
            known.size_bytes,
            is_cached=True,
        )

    def is_folder(self, artifact: model_runtime.Artifact) -> bool:
        """Return whether a cached artifact is a folder, by its path alone."""
        return artifact.path == self.entries.path(artifact.digest, cache_entries.FOLDER)

    def is_sound(self, artifact: model_runtime.Artifact) -> bool:
        """Return whether a cached artifact has its size and digest; a big sealed one is trusted.

        Disks and other programs change files, and a flipped bit is a wrong answer.
        """
        path = Path(artifact.path)
        try:
            listed = content.files(path)
            if sum(stat.st_size for _, stat in listed) != artifact.size_bytes:
                return False
            is_sealed = content.is_sealed(listed)
            if is_sealed and artifact.size_bytes > DIGESTED_BYTES_MAX:
                return True
            if not is_sealed:
                # Before they are read, so that what is written later still shows.
                content.seal(path, listed)
            return content.digest(path) == artifact.digest
        except (OSError, errors.LoadFailed):
            return False

    def is_untouched(self, artifact: model_runtime.Artifact) -> bool:
        """Return whether a cached artifact is there, and nobody wrote to it since it was sound."""
        try:
            listed = content.files(Path(artifact.path))
        except (OSError, errors.LoadFailed):
            return False
        size_bytes = sum(stat.st_size for _, stat in listed)
        return size_bytes == artifact.size_bytes and content.is_sealed(listed)

    def drop_or_age(self, artifact: model_runtime.Artifact) -> None:
        """Drop a damaged entry; have the next trim remove a sound one before all others."""
        path = Path(artifact.path)
        try:
            if content.digest(path) == artifact.digest:
                self.entries.age(artifact.digest)
            else:
                logger.error("%s in the cache is damaged, and removed", path)
                self.drop(artifact.digest)
        except (OSError, errors.LoadFailed):
            # It has left the cache by itself.
            return

    def drop(self, digest: str) -> None:
        """Remove an entry whoever uses it; processes that have its files open keep them."""
        with self.temp() as folder:
            self.entries.remove(self.entries.path(digest, cache_entries.FOLDER), folder / "bad")

    def find_source(self, uri: str, stamp: str | None = None) -> source_index.KnownSource | None:
        """Return what fetches by any process learned of a source, if its content is still here.

        That is the newest content, or the one whose stamp begins with `stamp`.
        """
        records = self._index.read(uri)
        if stamp is not None:
            records = tuple(record for record in records if record.is_of(stamp))
        # A trim may have removed the content since.
        return records[0] if records and self.has(records[0]) else None

    def find_earlier(self, uri: str, stamp: str) -> source_index.KnownSource | None:
        """Return the newest content of a source that is not the one of this stamp, if it is here.

        What did not load when it was tried is passed over.
        """
        records = self._index.read(uri)
        present = {record.digest for record in records if record.is_of(stamp)}
        for record in records:
            is_other = record.stamp != "" and record.digest not in present
            if is_other and not self.entries.is_aged(record.digest) and self.has(record):
                return record
        return None

    def remember_source(self, uri: str, known: source_index.KnownSource) -> None:
        """Write down what a source held."""
        with self.temp() as folder:
            self._index.write(uri, known, folder / "record")

    def take_archive(self, archive: Path, shown: str) -> tuple[str, int]:
        """Unpack an archive into the cache; return the content's digest and size in bytes.

        Raises LoadFailed, naming `shown`, for an archive that can't be unpacked.
        """
        with self.temp() as folder:
            try:
                unpacked = archives.unpack(archive, folder / "unpacked", self.artifact_bytes_max)
            except errors.LoadFailed as error:
                raise errors.LoadFailed(f"{shown}: {error.message}") from None
            return self.take(unpacked, cache_entries.FOLDER)

    def take(self, path: Path, name: str) -> tuple[str, int]:
        """Move a finished file or folder into the cache; return its digest and size in bytes."""
        digest = content.digest(path)
        size_bytes = content.count_bytes(path)
        if name == cache_entries.FOLDER:
            self.entries.adopt(path, digest, name)
            return digest, size_bytes
        with self.temp() as folder:
            # Into a folder, because an entry is one: it appears by the rename of a folder.
            path.rename(folder / name)
            self.entries.adopt(folder, digest, name)
        return digest, size_bytes

    def trim(self) -> int:
        """Remove entries by `garbage_collection.choose_removals`; return the bytes removed."""
        return self._remove(
            garbage_collection.choose_removals(
                self._scan(), self.size_bytes_max, self.slot.held_by_all(), self._young_since_s()
            )
        )

    def give_way(self, share: float) -> int:
        """Remove this share of the bytes that nobody uses; return the bytes removed."""
        idle = garbage_collection.list_idle(
            self._scan(), self.slot.held_by_all(), self._young_since_s()
        )
        return self._remove(garbage_collection.choose_share(idle, share))

    def _young_since_s(self) -> float:
        return time.time() - self._young_s

    def _scan(self) -> list[garbage_collection.CacheEntry]:
        return list(itertools.chain.from_iterable(self.entries.scan()))

    def _remove(self, removals: Sequence[garbage_collection.CacheEntry]) -> int:
        with self.temp() as folder:
            return sum(
                entry.size_bytes
                for entry in removals
                if self.entries.remove_unused(entry, folder / entry.path.name)
            )
