"""An index on disk of the content that sources had at their last fetch.

It makes it unnecessary to download unchanged sources, or to hash big files, again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class KnownSource:
    """A source's content when its stamp was `stamp`, which is empty if it was too fresh to trust.

    `digest` is the artifact's, `checksum` that of the bytes as they came; they differ for archives.
    `name` is the artifact's name in its cache entry. `place` is the path of an artifact that is
    used where it lies, empty for all others. `files` is the number of files that were stamped.
    """

    stamp: str
    digest: str
    checksum: str
    size_bytes: int
    name: str
    place: str = ""
    files: int = 1


class SourceIndex:
    """One small file for each source, by the hash of its URI."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, uri: str) -> Path:
        hexes = hashlib.sha256(uri.encode("utf-8", "surrogateescape")).hexdigest()
        return self._folder / hexes[:2] / f"{hexes}.json"

    def read(self, uri: str) -> KnownSource | None:
        """Return what was last written about a source; None if there is nothing readable."""
        try:
            return KnownSource(**json.loads(self._path(uri).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, uri: str, known: KnownSource, temp: Path) -> None:
        """Write a source's entry to `temp`, and rename that to its place."""
        # The URI itself is not written, because it may have credentials.
        temp.write_text(json.dumps(asdict(known)))
        path = self._path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        temp.replace(path)
