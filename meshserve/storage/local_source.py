"""Files and folders of this node's disk.

They are copied into the cache, and shared there by content: training scripts write over their files in place, and a mapped file that is
truncated kills the worker that maps it, with every model in it. A hard link would change with the original, so it protects from nothing.
File systems that can share blocks (XFS, Btrfs) copy nothing. Elsewhere a tiny model costs 8 KiB and a millisecond once on each node,
and one of 400 MB two seconds, of which its digest alone takes half a one. What is bigger than a quarter of the cache, or meets a full disk,
is used where it lies.
"""

from __future__ import annotations

import errno
import time
from pathlib import Path

from meshserve import errors
from meshserve.storage import cache_entries, content, model_uri, source_index
from meshserve.storage.artifact_cache import ArtifactCache

RECORD_BYTES_MIN = 1 << 20
"""Below it, reading the bytes again is cheaper than keeping a record of them."""
FRESH_S = 2.0
"""So long after a modification, another one may leave the same time behind on coarse file systems."""
TRIES = 3


def bring(source: model_uri.ModelUri, cache: ArtifactCache) -> source_index.KnownSource:
    """The source's content as it is now, in the cache. Raises LoadFailed with the reason for a user."""
    path = Path(source.path)
    try:
        for _ in range(TRIES):
            stamp = content.stamp(path)
            known = _known(source, stamp, cache)
            if content.stamp(path).text == stamp.text:
                return known
    except OSError as error:
        if not str(error.filename).startswith(source.path):
            raise
        raise errors.LoadFailed(f"{source.shown}: {reason(error)}") from None
    raise errors.LoadFailed(
        f"{source.shown} is being written: it changed whenever it was read", retry_after_s=1.0
    )


def is_current(source: model_uri.ModelUri, known: source_index.KnownSource) -> bool:
    """Whether the source still has the content that is known, by its stamp."""
    try:
        return content.stamp(Path(source.path)).text == known.stamp
    except (OSError, errors.LoadFailed):
        return False


def reason(error: OSError) -> str:
    """A system's error in words for a user."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return "there is no such file or folder on this node"
        case PermissionError():
            return "may not be read by the user that runs meshserve"
    return error.strerror or str(error)


def _known(
    source: model_uri.ModelUri, stamp: content.Stamp, cache: ArtifactCache
) -> source_index.KnownSource:
    recorded = cache.recorded(source.uri)
    if recorded is not None and recorded.stamp == stamp.text:
        return recorded
    path = Path(source.path)
    is_archive = source.is_archive and path.is_file()
    known = _unpacked(path, stamp, cache) if is_archive else _taken(path, stamp, cache)
    if known.stamp and (is_archive or known.size_bytes >= RECORD_BYTES_MIN):
        cache.record(source.uri, known)
    return known


def _trusted(stamp: content.Stamp) -> str:
    return stamp.text if time.time_ns() - stamp.changed_ns > FRESH_S * 1e9 else ""


def _taken(path: Path, stamp: content.Stamp, cache: ArtifactCache) -> source_index.KnownSource:
    if cache.is_too_big_to_copy(stamp.size_bytes):
        return _in_place(path, stamp)
    if stamp.size_bytes < RECORD_BYTES_MIN:
        known = _described(path, stamp, content.digest(path))
        if cache.has(known):
            return known
    try:
        with cache.temp() as made:
            known = _described(
                path, stamp, content.copy(path, made / cache_entries.name_in_cache(path))
            )
            cache.objects.adopt(made, known.digest, known.name)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _in_place(path, stamp)
        raise
    return known


def _in_place(path: Path, stamp: content.Stamp) -> source_index.KnownSource:
    digest = content.digest(path)
    return source_index.KnownSource(
        _trusted(stamp), digest, digest, stamp.size_bytes, path.name, str(path), stamp.files
    )


def _described(path: Path, stamp: content.Stamp, digest: str) -> source_index.KnownSource:
    return source_index.KnownSource(
        _trusted(stamp),
        digest,
        digest,
        stamp.size_bytes,
        cache_entries.name_in_cache(path),
        files=stamp.files,
    )


def _unpacked(path: Path, stamp: content.Stamp, cache: ArtifactCache) -> source_index.KnownSource:
    digest, size_bytes = cache.take_archive(path, str(path))
    return source_index.KnownSource(
        _trusted(stamp), digest, content.digest(path), size_bytes, cache_entries.FOLDER
    )
