"""Reads the big entries of a node's cache again and again, and removes those that have changed.

Small ones are hashed before each load (`ArtifactCache.is_sound`).
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from meshserve import errors
from meshserve.storage import artifact_cache, content

PERIOD_S = 6 * 3600.0
"""The time between two passes over the cache; all processes of a node share it."""
LOOK_S = 300.0
BYTES_PER_S = 32 << 20
"""The speed of a pass, so that loads keep the disk."""
CHUNK_BYTES = 4 << 20

logger = logging.getLogger(__name__)


async def keep_scrubbing(cache: artifact_cache.ArtifactCache) -> None:
    """Make a pass whenever one is due, until cancelled; one process of the node does it."""
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            await asyncio.to_thread(scrub_if_due, cache, BYTES_PER_S)
        except OSError as error:
            logger.warning("the cache of artifacts can't be verified: %s", error)


def scrub_if_due(cache: artifact_cache.ArtifactCache, bytes_per_s: float) -> int:
    """Make a pass if the last one is long ago and no other process makes one.

    Returns how many entries were removed.
    """
    descriptor = os.open(cache.folder / "scrubbed", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        stat = os.fstat(descriptor)
        # An empty file is a cache that was never verified.
        if stat.st_size and time.time() - stat.st_mtime < PERIOD_S:
            return 0
        # Sets the file's time before the pass, or one that fails would be tried at each look.
        os.pwrite(descriptor, b"1", 0)
        return scrub(cache, bytes_per_s)
    except BlockingIOError:
        return 0
    finally:
        os.close(descriptor)


def scrub(cache: artifact_cache.ArtifactCache, bytes_per_s: float) -> int:
    """Hash every big entry, and remove those that have changed; return how many."""
    removed = 0
    for entry in (entry for part in cache.entries.scan() for entry in part):
        is_big = entry.size_bytes > artifact_cache.DIGESTED_BYTES_MAX
        if is_big and not _is_sound(entry.path, entry.digest, bytes_per_s):
            logger.error("%s in the cache is damaged, and removed", entry.path)
            cache.drop(entry.digest)
            removed += 1
    return removed


def _is_sound(path: Path, digest: str, bytes_per_s: float) -> bool:
    try:
        listed = content.files(path)
        # The names of one file are links to it; a folder's digest is that of its tree.
        if len({stat.st_ino for _, stat in listed}) == 1 and (
            digest == f"sha256:{_slow_hex(path / listed[0][0], bytes_per_s)}"
        ):
            return True
        hexes = {name: _slow_hex(path / name, bytes_per_s) for name, _ in listed}
        return content.tree_digest(hexes) == digest
    except FileNotFoundError:
        # It was removed meanwhile.
        return True
    except (OSError, errors.LoadFailed):
        return False


def _slow_hex(path: Path, bytes_per_s: float) -> str:
    hashing = hashlib.sha256()
    for chunk in _slowly(path, bytes_per_s):
        hashing.update(chunk)
    return hashing.hexdigest()


def _slowly(path: Path, bytes_per_s: float) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
            time.sleep(len(chunk) / bytes_per_s)
