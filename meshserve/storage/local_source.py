"""Copy files and folders of this node's disk into the cache.

They are copied because training scripts overwrite files in place, and a mapped file that is
truncated kills the worker with all its models. A hard link would change with the original. XFS and
Btrfs share the blocks; other file systems need, once on each node, 8 KiB and a millisecond for a
tiny model, and two seconds for one of 400 MB. Nothing is used where it lies, however big it is:
see docs/decisions/0200-every-artifact-is-a-copy.md.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from meshserve import errors
from meshserve.storage import (
    artifact_cache,
    cache_entries,
    content,
    model_uri,
    settling,
    source_index,
)

REMEMBERED_BYTES_MIN = 1 << 20
"""Digests of smaller files are not kept on disk: reading the files again is cheaper."""
FRESH_S = 2.0
"""The coarsest resolution of modification times: two changes within it may look the same."""
TRIES = 3


class NotSettled(errors.LoadFailed):
    """The files are not what is declared, and must not be served as they are now."""


def check_inside(source: model_uri.ModelUri) -> None:
    """Raise LoadFailed for local files that really lie outside of the source's file root."""
    is_bound = source.file_root and source.kind == "local"
    if is_bound and not content.is_inside(source.path, source.file_root):
        raise errors.LoadFailed(
            f"{source.shown} leads out of {source.file_root}, below which it was registered"
        )


def bring(
    source: model_uri.ModelUri,
    cache: artifact_cache.ArtifactCache,
    settle_ns: int = settling.SETTLE_NS,
) -> source_index.KnownSource:
    """Bring the content that the source means into the cache: its declared, or else settled one.

    Raises LoadFailed for a user, or NotSettled if another content is there, or only half of it.
    """
    path = Path(source.path)
    try:
        for _ in range(TRIES):
            stamp = content.stamp(path)
            known = cache.find_source(source.uri, source.stamp or stamp.text)
            if known is not None:
                return known
            # Files with the declared stamp had settled when they were declared.
            if not (source.stamp and stamp.text.startswith(source.stamp)):
                _check_settled(source, settle_ns)
            known = _take_whole(source, stamp, cache)
            # Whoever may write to the file root may have replaced a part of the path by a link.
            check_inside(source)
            # What changed while it was read may be a part of each content.
            if content.stamp(path).text == stamp.text:
                return known
    except (OSError, errors.LoadFailed) as error:
        return _find_gone(source, cache, error)
    raise NotSettled(
        f"{source.shown} is being written: it changed whenever it was read", retry_after_s=1.0
    )


def _check_settled(source: model_uri.ModelUri, settle_ns: int) -> None:
    """Raise NotSettled if the files are being written, or surely not what is declared."""
    if settling.is_being_written(Path(source.path), time.time_ns(), settle_ns):
        raise NotSettled(f"{source.shown} is being written", retry_after_s=1.0)
    if source.is_stamped_here:
        raise NotSettled(
            f"{source.shown} has changed since it was declared, and what it was is not in the "
            "cache any more: load the model to take the files as they are now",
            retry_after_s=1.0,
        )


def _find_gone(
    source: model_uri.ModelUri, cache: artifact_cache.ArtifactCache, error: Exception
) -> source_index.KnownSource:
    """Return the declared content from the cache although its files can't be read; else raise."""
    if isinstance(error, NotSettled):
        raise error
    # An error of the cache's own disk is not the source's.
    if isinstance(error, OSError) and not str(error.filename).startswith(source.path):
        raise error
    known = cache.find_source(source.uri, source.stamp) if source.stamp else None
    if known is not None:
        return known
    if isinstance(error, OSError):
        raise errors.LoadFailed(f"{source.shown}: {reason(error)}") from None
    raise error


def is_current(source: model_uri.ModelUri, known: source_index.KnownSource) -> bool:
    """Return whether the known content is what the source means: the declared, or present one."""
    if source.stamp:
        return known.is_of(source.stamp)
    try:
        return content.stamp(Path(source.path)).text == known.stamp
    except (OSError, errors.LoadFailed):
        return False


def reason(error: OSError) -> str:
    """Return a system error in words for a user."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return "there is no such file or folder on this node"
        case PermissionError():
            return "may not be read by the user that runs meshserve"
    return error.strerror or str(error)


def _take_whole(
    source: model_uri.ModelUri, stamp: content.Stamp, cache: artifact_cache.ArtifactCache
) -> source_index.KnownSource:
    path = Path(source.path)
    is_archive = source.is_archive and path.is_file()
    known = (
        _unpack(path, stamp, cache) if is_archive else _take(path, stamp, cache, source.file_root)
    )
    if source.stamp and stamp.text.startswith(source.stamp):
        # It was seen to be settled when it was declared, or somebody said that it was whole.
        known = dataclasses.replace(known, stamp=stamp.text)
    is_worth = is_archive or source.stamp or known.size_bytes >= REMEMBERED_BYTES_MIN
    if known.stamp and is_worth:
        cache.remember_source(source.uri, known)
    return known


def _trusted(stamp: content.Stamp) -> str:
    return stamp.text if time.time_ns() - stamp.changed_ns > FRESH_S * 1e9 else ""


def _take(
    path: Path, stamp: content.Stamp, cache: artifact_cache.ArtifactCache, file_root: str
) -> source_index.KnownSource:
    # Hashed before it is copied: most small files are in the cache already.
    if stamp.size_bytes < REMEMBERED_BYTES_MIN:
        known = _describe(path, stamp, content.digest(path, file_root))
        if cache.has(known):
            return known
    with cache.temp() as folder:
        name = cache_entries.name_in_cache(path)
        digest = content.copy(path, folder / name, file_root)
        known = _describe(path, stamp, digest)
        cache.entries.adopt(folder, known.digest, known.name)
    return known


def _describe(path: Path, stamp: content.Stamp, digest: str) -> source_index.KnownSource:
    name = cache_entries.name_in_cache(path)
    return source_index.KnownSource(
        _trusted(stamp), digest, digest, stamp.size_bytes, name, files=stamp.files
    )


def _unpack(
    path: Path, stamp: content.Stamp, cache: artifact_cache.ArtifactCache
) -> source_index.KnownSource:
    digest, size_bytes = cache.take_archive(path, str(path))
    return source_index.KnownSource(
        _trusted(stamp), digest, content.digest(path), size_bytes, cache_entries.FOLDER
    )
