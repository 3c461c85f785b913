"""What is known of a source: which content it had, by which stamp. Kept on disk where finding out again is dear."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class KnownSource:
    """A source's content, as it was when its stamp was `stamp`; an empty stamp was too fresh to be trusted.

    `digest` is the artifact's, `checksum` that of the bytes as they came: they differ for archives. `name` is the artifact's in its cache
    entry; `place` is the path of one that is used where it lies, and empty for all others. `files` were stamped.
    """

    stamp: str
    digest: str
    checksum: str
    size_bytes: int
    name: str
    place: str = ""
    files: int = 1


class SourceIndex:
    """Small files, one for each source. What can't be read is not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, uri: str) -> Path:
        hexes = hashlib.sha256(uri.encode("utf-8", "surrogateescape")).hexdigest()
        return self._folder / hexes[:2] / f"{hexes}.json"

    def read(self, uri: str) -> KnownSource | None:
        """What was last written about the source."""
        try:
            return KnownSource(**json.loads(self._path(uri).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, uri: str, known: KnownSource, made: Path) -> None:
        """Remember it, through a file at `made`. The URI itself is not written: it may hold credentials."""
        made.write_text(json.dumps(asdict(known)))
        path = self._path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        made.replace(path)
