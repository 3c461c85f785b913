"""One node's cache on disk, shared by all its processes: entries, records and seats in one folder."""

from __future__ import annotations

import itertools
import time
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

IN_PLACE_SHARE = 0.25


class ArtifactCache:
    """Everything on disk. Its methods block, and any thread may call them but `take_seat`, `hold` and `release`."""

    def __init__(
        self, folder: Path, size_bytes_max: int, artifact_bytes_max: int, young_s: float
    ) -> None:
        self.size_bytes_max = size_bytes_max
        self.artifact_bytes_max = artifact_bytes_max
        self.objects = cache_entries.CacheEntries(folder / "objects")
        self.records = source_index.SourceIndex(folder / "sources")
        self.seat = process_slot.ProcessSlot(folder / "seats")
        self._young_s = young_s

    def is_too_big_to_copy(self, size_bytes: int) -> bool:
        """Whether a copy would push too much else out of the cache."""
        return size_bytes > self.size_bytes_max * IN_PLACE_SHARE

    def temp(self) -> AbstractContextManager[Path]:
        """A new folder for unfinished files, removed at the end."""
        return self.seat.temp()

    def has(self, known: source_index.KnownSource) -> bool:
        """Whether the content is here, whole."""
        return bool(known.place) or self.objects.has(known.digest, known.name, known.size_bytes)

    def artifact(
        self, known: source_index.KnownSource, made: model_runtime.Artifact | None = None
    ) -> model_runtime.Artifact | None:
        """The artifact, marked as used now; None if it is not here any more. Takes microseconds.

        `made` is what this gave for the same `known` before, and is given again: a path is dear to make.
        """
        if known.place:
            return made or model_runtime.Artifact(Path(known.place), known.digest, known.size_bytes)
        if not self.objects.touch(known.digest, known.name):
            return None
        return made or model_runtime.Artifact(
            self.objects.path(known.digest, known.name),
            known.digest,
            known.size_bytes,
            is_cached=True,
        )

    def recorded(self, uri: str) -> source_index.KnownSource | None:
        """What an earlier fetch by any process learned of the source, if its content is still here."""
        known = self.records.read(uri)
        return known if known is not None and self.has(known) else None

    def take_archive(self, archive: Path, shown: str) -> tuple[str, int]:
        """Unpack an archive and take its content in; the digest and the bytes of that. Raises LoadFailed, naming `shown`."""
        with self.temp() as made:
            try:
                folder = archives.unpack(archive, made / "unpacked", self.artifact_bytes_max)
            except errors.LoadFailed as error:
                raise errors.LoadFailed(f"{shown}: {error.message}") from None
            return self.take(folder, cache_entries.FOLDER)

    def take(self, made: Path, name: str) -> tuple[str, int]:
        """Take a finished file or folder in as `name`; its digest and its bytes."""
        digest = content.digest(made)
        size_bytes = sum(stat.st_size for _, stat in content.files(made))
        if name == cache_entries.FOLDER:
            self.objects.adopt(made, digest, name)
            return digest, size_bytes
        with self.temp() as entry:
            made.rename(entry / name)
            self.objects.adopt(entry, digest, name)
        return digest, size_bytes

    def record(self, uri: str, known: source_index.KnownSource) -> None:
        """Remember what a source held."""
        with self.temp() as made:
            self.records.write(uri, known, made / "record")

    def trim(self) -> int:
        """Bring the cache below its limit as far as its rules allow; the bytes that left. See `trimming.leaving`."""
        entries = list(itertools.chain.from_iterable(self.objects.entries()))
        leaving = garbage_collection.choose_removals(
            entries, self.size_bytes_max, self.seat.held_by_all(), time.time() - self._young_s
        )
        with self.temp() as made:
            return sum(
                entry.size_bytes
                for entry in leaving
                if self.objects.remove_unused(entry, made / entry.path.name)
            )
