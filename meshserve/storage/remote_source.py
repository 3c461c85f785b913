"""Download artifacts from the network into the cache, each whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from meshserve import errors
from meshserve.storage import (
    archives,
    artifact_cache,
    cache_entries,
    content,
    model_uri,
    remote_objects,
    source_index,
)

T = TypeVar("T")
CHUNK_BYTES = 4 << 20
PARALLEL = 8
"""Downloads of one folder at a time."""
CHECK_S = 5.0
"""After this time without an answer from its source, cached content is used unchecked."""


class InThread(Protocol):
    """Runs blocking work in a thread."""

    def __call__(self, work: Callable[..., T], /, *arguments: object) -> Awaitable[T]:
        """Return the work's result."""
        ...


async def bring(
    source: model_uri.ModelUri, cache: artifact_cache.ArtifactCache, in_thread: InThread
) -> source_index.KnownSource:
    """Download the source's content, unless it is in the cache and unchanged.

    Raises LoadFailed with the reason for a user.
    """
    objects = remote_objects.RemoteObjects(source)
    before = await in_thread(cache.find_source, source.uri)
    if before is not None and await _is_current(objects, before):
        return before
    try:
        with cache.temp() as folder:
            known = await Download(source, objects, cache, in_thread).into(folder)
        await in_thread(cache.remember_source, source.uri, known)
    except ExceptionGroup as group:
        # The first failure, which has ended the other downloads.
        raise remote_objects.failure(source, group.exceptions[0]) from None
    except remote_objects.EXPECTED as error:
        raise remote_objects.failure(source, error) from None
    return known


async def _is_current(
    objects: remote_objects.RemoteObjects, known: source_index.KnownSource
) -> bool:
    """Return whether the cached content may be used: it is current, or can't be checked now."""
    try:
        async with asyncio.timeout(CHECK_S):
            return bool(known.stamp) and remote_objects.stamp(await objects.list()) == known.stamp
    except (*remote_objects.EXPECTED, errors.LoadFailed):
        return True


class Download:
    """The download of one source into the cache."""

    def __init__(
        self,
        source: model_uri.ModelUri,
        objects: remote_objects.RemoteObjects,
        cache: artifact_cache.ArtifactCache,
        in_thread: InThread,
    ) -> None:
        self._source = source
        self._objects = objects
        self._cache = cache
        self._in_thread = in_thread
        self._left_bytes = cache.artifact_bytes_max

    async def into(self, folder: Path) -> source_index.KnownSource:
        """Download into the cache, by way of `folder`.

        Raises what obstore raises, and LoadFailed if the source is too big or a broken archive.
        """
        # HTTP servers are not asked for a list, because some answer GET but not HEAD.
        listed = (None,) if self._source.kind == "http" else await self._objects.list()
        if len(listed) > 1 or (listed[0] and listed[0].name):
            return await self._download_folder(folder / "folder", listed)
        target = folder / _file_name(self._source)
        downloaded, hexes = await self._save(listed[0], target)
        return await self._in_thread(self._take_file, target, downloaded, hexes)

    async def _download_folder(
        self, folder: Path, listed: tuple[remote_objects.RemoteObject, ...]
    ) -> source_index.KnownSource:
        # The list has the sizes, so what does not fit is refused before its first byte.
        self._check_fits(sum(object_.size_bytes for object_ in listed))
        gate = asyncio.Semaphore(PARALLEL)

        async def save(object_: remote_objects.RemoteObject) -> remote_objects.RemoteObject:
            async with gate:
                # A key is any text, and `..` in it must not lead out of the folder.
                return (await self._save(object_, folder / archives.relative(object_.name)))[0]

        async with asyncio.TaskGroup() as group:
            saving = [group.create_task(save(object_)) for object_ in listed]
        downloaded = tuple(task.result() for task in saving)
        return await self._in_thread(self._take_folder, folder, downloaded)

    async def _save(
        self, object_: remote_objects.RemoteObject | None, target: Path
    ) -> tuple[remote_objects.RemoteObject, str]:
        """Download one object; return its state at that time, and its hex digest."""
        object_, result = await self._objects.get(object_)
        self._check_fits(object_.size_bytes)
        target.parent.mkdir(parents=True, exist_ok=True)
        hashing = hashlib.sha256()
        with target.open("xb") as writing:
            async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                # Servers may send more bytes than they announced.
                self._left_bytes -= len(chunk)
                self._check_fits(0)
                await self._in_thread(_add, writing, hashing, chunk)
            # In a thread, because its fsync waits for the disk.
            await self._in_thread(content.finish, writing, object_.size_bytes)
        return object_, hashing.hexdigest()

    def _check_fits(self, more_bytes: int) -> None:
        if more_bytes > self._left_bytes or self._left_bytes < 0:
            raise errors.LoadFailed(
                f"{self._source.shown} is bigger than the limit of "
                f"{self._cache.artifact_bytes_max} bytes"
            )

    def _take_file(
        self, path: Path, downloaded: remote_objects.RemoteObject, hexes: str
    ) -> source_index.KnownSource:
        checksum, stamp = f"sha256:{hexes}", remote_objects.stamp((downloaded,))
        if self._source.is_archive:
            digest, size_bytes = self._cache.take_archive(path, self._source.shown)
            name = cache_entries.FOLDER
        else:
            digest, size_bytes = self._cache.take(path, path.name)
            name = path.name
        return source_index.KnownSource(stamp, digest, checksum, size_bytes, name)

    def _take_folder(
        self, folder: Path, downloaded: tuple[remote_objects.RemoteObject, ...]
    ) -> source_index.KnownSource:
        digest, size_bytes = self._cache.take(folder, cache_entries.FOLDER)
        stamp = remote_objects.stamp(downloaded)
        return source_index.KnownSource(stamp, digest, digest, size_bytes, cache_entries.FOLDER)


def _file_name(source: model_uri.ModelUri) -> str:
    return source.name if source.name not in ("", "..") else "model"


def _add(writing: IO[bytes], hashing: Any, chunk: bytes) -> None:
    hashing.update(chunk)
    writing.write(chunk)
