"""An index on disk of the content that sources had at their last fetches.

It makes it unnecessary to download unchanged sources, or to hash big files, again. And it finds the
content that is declared while the files are replaced, or after a broken replacement.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

RECORDS_MAX = 4
"""Contents of one source that are known at a time."""


@dataclass(frozen=True, slots=True)
class KnownSource:
    """A source's content when its stamp was `stamp`, which is empty if it was too fresh to trust.

    `digest` is the artifact's, `checksum` that of the bytes as they came; they differ for archives.
    `name` is the artifact's name in its cache entry, `files` the number of files that were stamped.
    """

    stamp: str
    digest: str
    checksum: str
    size_bytes: int
    name: str
    files: int = 1

    def is_of(self, stamp: str) -> bool:
        """Return whether this is the content of a source with this beginning of a stamp."""
        return self.stamp != "" and self.stamp.startswith(stamp)


class SourceIndex:
    """One small file for each source, by the hash of its URI."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, uri: str) -> Path:
        hexes = hashlib.sha256(uri.encode("utf-8", "surrogateescape")).hexdigest()
        return self._folder / hexes[:2] / f"{hexes}.json"

    def read(self, uri: str) -> tuple[KnownSource, ...]:
        """Return what was written about a source, the newest first, as far as it is readable."""
        try:
            return tuple(
                KnownSource(**record) for record in json.loads(self._path(uri).read_bytes())
            )
        except (OSError, ValueError, TypeError):
            # Fields that another version wrote are a TypeError: the source is then fetched anew.
            return ()

    def write(self, uri: str, known: KnownSource, temp: Path) -> None:
        """Write a source's entry, with earlier ones, to `temp`, and rename that to its place."""
        # What two processes write at once may lose an earlier content, which is only a help.
        earlier = [record for record in self.read(uri) if record.stamp != known.stamp]
        records = [known, *earlier][:RECORDS_MAX]
        # The URI itself is not written, because it may have credentials.
        temp.write_text(json.dumps([asdict(record) for record in records]))
        path = self._path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Other processes read the file at any moment, and must not see a part of it.
        temp.replace(path)
