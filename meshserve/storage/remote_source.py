"""Downloads: from the network into the cache, each whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from meshserve import errors
from meshserve.storage import archives, blobs, cache_entries, content, model_uri, source_index
from meshserve.storage.artifact_cache import ArtifactCache

T = TypeVar("T")
CHUNK_BYTES = 4 << 20
PARALLEL = 8
LOOK_S = 5.0


class InThread(Protocol):
    """Runs blocking work in a thread."""

    def __call__(self, work: Callable[..., T], /, *arguments: object) -> Awaitable[T]:
        """The work's result."""
        ...


async def bring(
    source: model_uri.ModelUri, cache: ArtifactCache, in_thread: InThread
) -> source_index.KnownSource:
    """The source's content, downloaded unless it is here and unchanged. Raises LoadFailed with the reason for a user."""
    there = blobs.RemoteObjects(source)
    recorded = await in_thread(cache.recorded, source.uri)
    if recorded is not None and await _is_current(there, recorded):
        return recorded
    try:
        with cache.temp() as made:
            known = await Download(source, there, cache, in_thread).into(made)
        await in_thread(cache.record, source.uri, known)
    except ExceptionGroup as group:
        raise blobs.failure(source, group.exceptions[0]) from None
    except blobs.EXPECTED as error:
        raise blobs.failure(source, error) from None
    return known


async def _is_current(there: blobs.RemoteObjects, recorded: source_index.KnownSource) -> bool:
    """Whether the source is as it was, as far as can be told: one that does not answer now keeps nobody from using what is here."""
    try:
        async with asyncio.timeout(LOOK_S):
            return bool(recorded.stamp) and blobs.stamp(await there.look()) == recorded.stamp
    except (*blobs.EXPECTED, errors.LoadFailed):
        return True


class Download:
    """One source on its way into the cache."""

    def __init__(
        self,
        source: model_uri.ModelUri,
        there: blobs.RemoteObjects,
        cache: ArtifactCache,
        in_thread: InThread,
    ) -> None:
        self._source = source
        self._there = there
        self._cache = cache
        self._in_thread = in_thread
        self._left_bytes = cache.artifact_bytes_max

    async def into(self, made: Path) -> source_index.KnownSource:
        """Download by way of the folder `made`. Raises what obstore raises, and LoadFailed where it is too big or a broken archive."""
        found = (None,) if self._source.kind == "http" else await self._there.look()
        if len(found) > 1 or (found[0] and found[0].name):
            return await self._folder(made / "folder", found)
        target = made / _file_name(self._source)
        blob, hexes = await self._save(found[0], target)
        return await self._in_thread(self._take_file, target, blob, hexes)

    async def _folder(
        self, folder: Path, found: tuple[blobs.RemoteObject, ...]
    ) -> source_index.KnownSource:
        self._check_fits(sum(blob.size_bytes for blob in found))
        gate = asyncio.Semaphore(PARALLEL)

        async def save(blob: blobs.RemoteObject) -> blobs.RemoteObject:
            async with gate:
                return (await self._save(blob, folder / archives.relative(blob.name)))[0]

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(save(blob)) for blob in found]
        return await self._in_thread(
            self._take_folder, folder, tuple(task.result() for task in tasks)
        )

    async def _save(
        self, blob: blobs.RemoteObject | None, target: Path
    ) -> tuple[blobs.RemoteObject, str]:
        """Download one object; how it was, and its digest in hex."""
        blob, result = await self._there.get(blob)
        self._check_fits(blob.size_bytes)
        target.parent.mkdir(parents=True, exist_ok=True)
        hashing = hashlib.sha256()
        with target.open("xb") as writing:
            async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                self._left_bytes -= len(chunk)
                self._check_fits(0)
                await self._in_thread(_add, writing, hashing, chunk)
            await self._in_thread(content.finish, writing, blob.size_bytes)
        return blob, hashing.hexdigest()

    def _check_fits(self, more_bytes: int) -> None:
        if more_bytes > self._left_bytes or self._left_bytes < 0:
            raise errors.LoadFailed(
                f"{self._source.shown} is bigger than the limit of {self._cache.artifact_bytes_max} bytes"
            )

    def _take_file(
        self, made: Path, blob: blobs.RemoteObject, hexes: str
    ) -> source_index.KnownSource:
        checksum = f"sha256:{hexes}"
        if self._source.is_archive:
            digest, size_bytes = self._cache.take_archive(made, self._source.shown)
            return source_index.KnownSource(
                blobs.stamp((blob,)), digest, checksum, size_bytes, cache_entries.FOLDER
            )
        digest, size_bytes = self._cache.take(made, made.name)
        return source_index.KnownSource(
            blobs.stamp((blob,)), digest, checksum, size_bytes, made.name
        )

    def _take_folder(
        self, made: Path, found: tuple[blobs.RemoteObject, ...]
    ) -> source_index.KnownSource:
        digest, size_bytes = self._cache.take(made, cache_entries.FOLDER)
        return source_index.KnownSource(
            blobs.stamp(found), digest, digest, size_bytes, cache_entries.FOLDER
        )


def _file_name(source: model_uri.ModelUri) -> str:
    return source.name if source.name not in ("", "..") else "model"


def _add(writing: IO[bytes], hashing: Any, chunk: bytes) -> None:
    hashing.update(chunk)
    writing.write(chunk)
