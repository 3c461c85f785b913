"""The storage of workers: brings artifacts from any URI into the node's cache."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import functools
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from meshserve import errors, tasks
from meshserve.core.interfaces import model_runtime
from meshserve.storage import (
    artifact_cache,
    local_source,
    model_uri,
    remote_source,
    scrub,
    settling,
    single_flight,
    source_index,
)

T = TypeVar("T")
THREADS_MAX = 8
CHECKSUM = re.compile(r"(sha256:[0-9a-f]{64})?")
FEW_FILES = 64
"""An artifact of more files is not checked on the event loop: each takes some microseconds."""
TRIM_SHARE = 1 / 32
"""A process trims the cache after it has added this share of the cache's limit."""
ENTRY_BYTES = 8192
"""The approximate size on disk of an entry, besides its files."""
YOUNG_S = 300.0
SETTLED_TIMEOUT_S = 30.0
"""A load waits this long for files that are being written; callers have deadlines of their own."""
SETTLED_POLL_S = 0.25
FULL = (errno.ENOSPC, errno.EDQUOT)
GIVEN_WAY = (0.25, 1.0)
"""The shares of the idle bytes that are removed in turn while the disk is full."""
TRIES = 3
"""Tries of a fetch, because a trim may remove an old entry just as it is fetched again."""

logger = logging.getLogger(__name__)


class ArtifactStore:
    """A `model_runtime.Storage` over a folder that all processes of a node share.

    Used from one event loop. An artifact is not removed if any process holds it, or if it was
    fetched less than `young_s` ago. A removed file stays readable while it is open or mapped.
    """

    def __init__(
        self,
        cache_path: str,
        size_bytes_max: int,
        artifact_bytes_max: int,
        *,
        young_s: float = YOUNG_S,
        settle_s: float = settling.SETTLE_NS / 1e9,
    ) -> None:
        self._cache = artifact_cache.ArtifactCache(
            Path(cache_path), size_bytes_max, artifact_bytes_max, young_s
        )
        self._settle_ns = int(settle_s * 1e9)
        self._known: dict[str, source_index.KnownSource] = {}
        self._artifacts: dict[str, model_runtime.Artifact] = {}
        self._flights: single_flight.SingleFlight[source_index.KnownSource] = (
            single_flight.SingleFlight()
        )
        self._trims: single_flight.SingleFlight[None] = single_flight.SingleFlight()
        self._threads = ThreadPoolExecutor(THREADS_MAX, "storage")
        # As if that much had been added: the first fetch trims what earlier processes have left.
        self._untrimmed_bytes = size_bytes_max
        self._scrub: asyncio.Task[None] | None = None

    def _hit(self, source: model_uri.ModelUri, checksum: str) -> model_runtime.Artifact | None:
        known = self._known.get(source.uri)
        if known is None or known.files > FEW_FILES or checksum not in ("", known.checksum):
            return None
        if source.kind == "local" and not local_source.is_current(source, known):
            return None
        return self._cache.artifact(known, self._artifacts.get(source.uri))

    async def fetch(
        self, uri: str, checksum: str, *, verifies: bool = False, file_root: str = ""
    ) -> model_runtime.Artifact:
        """Return the artifact at `uri`. Raises LoadFailed with the reason for a user.

        Local files must lie in the folder `file_root`, links resolved, unless that is empty.

        Local files are checked for changes at each call. Other sources are checked once in the
        life of a process, and again for another `checksum`. With `verifies` a cached artifact is
        compared with its size, and with its digest unless it is big and nobody wrote to it; a bad
        one is fetched again.
        """
        source = dataclasses.replace(model_uri.parse(uri), file_root=file_root)
        # Each time: since the model was registered its path may have become a link to elsewhere.
        local_source.check_inside(source)
        hit = self._hit(source, checksum)
        if hit is not None and not (verifies and await self._is_dropped(source, hit)):
            return hit
        if CHECKSUM.fullmatch(checksum) is None:
            raise errors.LoadFailed(
                f"{source.shown}: "
                f"the checksum {checksum!r} is not sha256: and 64 hexadecimal digits"
            )
        for _ in range(TRIES):
            # By stamp and root too: for another one the content or the check may be another.
            known = await self._flights.join(
                f"{source.uri}#{source.stamp}#{file_root}", lambda: self._bring(source)
            )
            if checksum not in ("", known.checksum):
                raise errors.LoadFailed(
                    f"{source.shown} has the checksum {known.checksum}, but {checksum} was expected"
                )
            artifact = self._cache.artifact(known)
            if artifact is not None and not (verifies and await self._is_dropped(source, artifact)):
                # Another fetch may have brought newer content meanwhile.
                if self._known.get(source.uri) is known:
                    self._artifacts[source.uri] = artifact
                return artifact
        raise errors.LoadFailed(
            f"{source.shown} was removed from the cache whenever it was fetched", retry_after_s=1.0
        )

    async def _is_dropped(
        self, source: model_uri.ModelUri, artifact: model_runtime.Artifact
    ) -> bool:
        """Drop a cached artifact if it is not what its digest says; return whether it was."""
        if await self._is_sound(artifact):
            return False
        logger.error("%s: its copy in the cache is damaged, and is fetched again", source.shown)
        try:
            self._cache.drop(artifact.digest)
        except OSError as error:
            # Loads expect a MeshError: one that ended by this error would count as going on.
            raise _cache_failed(error) from None
        self._known.pop(source.uri, None)
        self._artifacts.pop(source.uri, None)
        return True

    async def _is_sound(self, artifact: model_runtime.Artifact) -> bool:
        is_big = artifact.size_bytes > artifact_cache.DIGESTED_BYTES_MAX
        return await self._look(self._cache.is_sound, artifact, is_slow=is_big)

    async def is_untouched(self, artifact: model_runtime.Artifact) -> bool:
        """Return whether nobody wrote to or removed the files since they were verified."""
        return await self._look(self._cache.is_untouched, artifact)

    async def _look(
        self,
        look: Callable[[model_runtime.Artifact], bool],
        artifact: model_runtime.Artifact,
        *,
        is_slow: bool = False,
    ) -> bool:
        # A folder may have 100,000 files; one small file takes less than a thread's answer.
        if is_slow or self._cache.is_folder(artifact):
            return await self._in_thread(look, artifact)
        return look(artifact)

    async def _bring(self, source: model_uri.ModelUri) -> source_index.KnownSource:
        try:
            # With each fetch, because somebody may have removed the cache since.
            self._cache.open()
            if self._scrub is None:
                self._scrub = tasks.spawn(scrub.keep_scrubbing(self._cache), "scrub of the cache")
            known = await self._bring_with_room(source)
        except OSError as error:
            raise _cache_failed(error) from None
        self._known[source.uri] = known
        self._artifacts.pop(source.uri, None)
        self._trim_after(known.size_bytes)
        return known

    async def _bring_with_room(self, source: model_uri.ModelUri) -> source_index.KnownSource:
        """Bring the source; while the disk is full, remove what nobody uses. Raises OSError."""
        for share in GIVEN_WAY:
            try:
                return await self._bring_source(source)
            except OSError as error:
                if error.errno not in FULL or not await self._in_thread(
                    self._cache.give_way, share
                ):
                    raise
        return await self._bring_source(source)

    async def _bring_source(self, source: model_uri.ModelUri) -> source_index.KnownSource:
        if source.kind == "local":
            return await self._bring_local(source)
        return await remote_source.bring(source, self._cache, self._in_thread)

    async def _bring_local(self, source: model_uri.ModelUri) -> source_index.KnownSource:
        """Bring local files, once nobody writes them any more. Raises LoadFailed."""
        ends_s = time.monotonic() + SETTLED_TIMEOUT_S
        while True:
            try:
                return await self._in_thread(
                    local_source.bring, source, self._cache, self._settle_ns
                )
            except local_source.NotSettled:
                if time.monotonic() >= ends_s:
                    raise
            await asyncio.sleep(SETTLED_POLL_S)

    def _trim_after(self, more_bytes: int) -> None:
        self._untrimmed_bytes += more_bytes + ENTRY_BYTES
        self._trims.begin("all", self._trim_while_due)

    async def _trim_while_due(self) -> None:
        while self._untrimmed_bytes >= self._cache.size_bytes_max * TRIM_SHARE:
            # Before the trim, so that what is added meanwhile makes another one due.
            self._untrimmed_bytes = 0
            try:
                await self.trim()
            except OSError as error:
                logger.warning("the cache of artifacts can't be trimmed: %s", error)

    async def trim(self) -> int:
        """Remove entries until the cache is below its limit, and return the bytes removed.

        Fetches do this by themselves. Held and young entries stay.
        """
        self._cache.open()
        return await self._in_thread(self._cache.trim)

    def hold(self, artifact: model_runtime.Artifact) -> None:
        """Keep the artifact in the cache until each hold is released, or this process ends.

        Raises LoadFailed if the cache can't be written.
        """
        try:
            self._cache.slot.hold(artifact.digest)
        except OSError as error:
            self._cache.slot.release(artifact.digest)
            raise _cache_failed(error) from None

    def release(self, artifact: model_runtime.Artifact) -> None:
        """End one hold."""
        self._cache.slot.release(artifact.digest)

    async def find_earlier(self, uri: str) -> str:
        """Return the URI of the newest other content of the files in the cache that may load."""
        source = model_uri.parse(uri)
        if source.kind != "local" or not source.stamp:
            return ""
        known = await self._in_thread(self._cache.find_earlier, source.uri, source.stamp)
        return model_uri.stamped(source.path, known.stamp) if known else ""

    def give_up(self, uri: str) -> None:
        """Hash the cached copy of what could not be loaded, and drop it if it is damaged.

        A sound one leaves the cache before all others.
        """
        with contextlib.suppress(errors.LoadFailed):
            artifact = self._artifacts.get(model_uri.parse(uri).uri)
            if artifact is not None:
                # Not awaited: a hash takes half a second per GiB, and the failure is told now.
                work = self._in_thread(self._cache.drop_or_age, artifact)
                tasks.spawn(work, "look at an artifact")

    async def close(self) -> None:
        """Cancel downloads, remove unfinished files and end holds. Finished entries stay."""
        if self._scrub is not None:
            self._scrub.cancel()
        await self._flights.close()
        await self._trims.close()
        # A thread can't be cancelled, and may still copy a big file: the event loop goes on.
        await asyncio.to_thread(self._threads.shutdown)
        # Last, because the threads write to the slot's folder.
        self._cache.slot.give_back()

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, functools.partial(work, *arguments)
        )


def _cache_failed(error: OSError) -> errors.LoadFailed:
    if error.errno in FULL:
        return errors.LoadFailed(
            "the disk of the artifact cache is full: make room there, or move it by `cache.path`",
            retry_after_s=5.0,
        )
    return errors.LoadFailed(f"the cache of artifacts fails: {error}")
