"""Artifacts from anywhere: what the workers fetch from."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.storage import local_source, model_uri, remote_source, single_flight, source_index
from meshserve.storage.artifact_cache import ArtifactCache

T = TypeVar("T")
THREADS_MAX = 8
CHECKSUM = re.compile(r"(sha256:[0-9a-f]{64})?")
FEW_FILES = 64
"""So many files are looked at on the event loop: some microseconds each."""
TRIM_SHARE = 1 / 32
"""Of the cache's limit: after taking in so much, a process looks whether the cache has grown too big."""
ENTRY_BYTES = 8192
"""What an entry takes on disk besides its bytes, about."""
YOUNG_S = 300.0
TRIES = 3
"""A trim may take what lay here unused for long, just as it is found again."""

logger = logging.getLogger(__name__)


class ArtifactStore:
    """Implements core.ports.Storage over a folder that all processes of a node share. Lives on one event loop.

    What is safe from trimming: an artifact that was fetched less than `young_s` ago, and one that anybody holds. A file that leaves the
    cache while it is open or mapped stays readable to whoever has it.
    """

    def __init__(
        self,
        cache_path: str,
        size_bytes_max: int,
        artifact_bytes_max: int,
        *,
        young_s: float = YOUNG_S,
    ) -> None:
        self._cache = ArtifactCache(Path(cache_path), size_bytes_max, artifact_bytes_max, young_s)
        self._known: dict[str, source_index.KnownSource] = {}
        self._artifacts: dict[str, model_runtime.Artifact] = {}
        self._flights: single_flight.SingleFlight[source_index.KnownSource] = (
            single_flight.SingleFlight()
        )
        self._trims: single_flight.SingleFlight[None] = single_flight.SingleFlight()
        self._threads = ThreadPoolExecutor(THREADS_MAX, "storage")
        self._untrimmed_bytes = size_bytes_max

    def cached(self, uri: str, checksum: str) -> model_runtime.Artifact | None:
        """The artifact if this process fetched it before, and it is here and up to date; else None. Takes microseconds; never raises."""
        try:
            return self._hit(model_uri.parse(uri), checksum)
        except errors.LoadFailed:
            return None

    def _hit(self, source: model_uri.ModelUri, checksum: str) -> model_runtime.Artifact | None:
        known = self._known.get(source.uri)
        if known is None or known.files > FEW_FILES or checksum not in ("", known.checksum):
            return None
        if source.kind == "local" and not local_source.is_current(source, known):
            return None
        return self._cache.artifact(known, self._artifacts.get(source.uri))

    async def fetch(self, uri: str, checksum: str) -> model_runtime.Artifact:
        """The artifact behind `uri`, from the cache where it is there. Raises LoadFailed with the reason for a user.

        Local files are looked at each time; what came from elsewhere once in a process's life, and when its checksum is another one.
        """
        source = model_uri.parse(uri)
        hit = self._hit(source, checksum)
        if hit is not None:
            return hit
        if CHECKSUM.fullmatch(checksum) is None:
            raise errors.LoadFailed(
                f"{source.shown}: the checksum {checksum!r} is not sha256: and 64 hexadecimal digits"
            )
        for _ in range(TRIES):
            known = await self._flights.join(source.uri, lambda: self._bring(source))
            if checksum not in ("", known.checksum):
                raise errors.LoadFailed(
                    f"{source.shown} has the checksum {known.checksum}, but {checksum} was expected"
                )
            artifact = self._cache.artifact(known)
            if artifact is not None:
                return self._kept(source.uri, known, artifact)
        raise errors.LoadFailed(
            f"{source.shown} was removed from the cache whenever it was fetched", retry_after_s=1.0
        )

    def _kept(
        self, uri: str, known: source_index.KnownSource, artifact: model_runtime.Artifact
    ) -> model_runtime.Artifact:
        if self._known.get(uri) is known:
            self._artifacts[uri] = artifact
        return artifact

    async def _bring(self, source: model_uri.ModelUri) -> source_index.KnownSource:
        try:
            self._cache.seat.take()
            if source.kind == "local":
                known = await self._in_thread(local_source.bring, source, self._cache)
            else:
                known = await remote_source.bring(source, self._cache, self._in_thread)
        except OSError as error:
            raise errors.LoadFailed(f"the cache of artifacts fails: {error}") from None
        self._known[source.uri] = known
        self._artifacts.pop(source.uri, None)
        self._trim_after(known.size_bytes)
        return known

    def _trim_after(self, more_bytes: int) -> None:
        self._untrimmed_bytes += more_bytes + ENTRY_BYTES
        self._trims.begin("all", self._trim_while_due)

    async def _trim_while_due(self) -> None:
        while self._untrimmed_bytes >= self._cache.size_bytes_max * TRIM_SHARE:
            self._untrimmed_bytes = 0
            try:
                await self.trim()
            except OSError as error:
                logger.warning("the cache of artifacts can't be trimmed: %s", error)

    async def trim(self) -> int:
        """Bring the cache below its limit as far as what is safe from trimming allows; the bytes that left. Happens by itself."""
        self._cache.seat.take()
        return await self._in_thread(self._cache.trim)

    def hold(self, artifact: model_runtime.Artifact) -> None:
        """Keep the artifact in the cache, for all processes, until it is released as often as it was held, or this process ends."""
        self._cache.seat.hold(artifact.digest)

    def release(self, artifact: model_runtime.Artifact) -> None:
        """End one hold."""
        self._cache.seat.release(artifact.digest)

    async def close(self) -> None:
        """End downloads and holds, and leave nothing unfinished behind. What is in the cache stays."""
        await self._flights.close()
        await self._trims.close()
        await asyncio.to_thread(self._threads.shutdown)
        self._cache.seat.give_back()

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, functools.partial(work, *arguments)
        )
