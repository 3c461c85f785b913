"""The check of sources before models are registered: whether anything is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path

from meshserve import errors
from meshserve.storage import model_uri, remote_objects

CHECK_S = 5.0
"""A store that does not answer in this time is not known to lack the source."""
PARALLEL = 32
ALL_S = 20.0
"""Sources of a configuration that were not checked after this time are let pass."""


async def check_exists(uri: str) -> str:
    """Return why the URI can't be checked now, or "" if something is there.

    Raises InvalidRequest if nothing is there, or if no source can have it.
    """
    try:
        source = model_uri.parse(uri)
    except errors.LoadFailed as error:
        raise errors.InvalidRequest(error.message) from None
    try:
        async with asyncio.timeout(CHECK_S):
            if await _exists(source):
                return ""
    except TimeoutError:
        return f"{source.shown} did not answer within {CHECK_S:g} s"
    except (*remote_objects.EXPECTED, errors.LoadFailed) as error:
        return remote_objects.failure(source, error).message
    raise errors.InvalidRequest(f"there is nothing at {source.shown}")


async def find_missing(uris: Iterable[str]) -> dict[str, str]:
    """Return why nothing can come from them, by the URIs where that is sure."""
    missing: dict[str, str] = {}
    gate = asyncio.Semaphore(PARALLEL)

    async def check(uri: str) -> None:
        async with gate:
            try:
                await check_exists(uri)
            except errors.InvalidRequest as error:
                missing[uri] = error.message

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ALL_S), asyncio.TaskGroup() as group:
            for uri in set(uris):
                group.create_task(check(uri))
    return missing


async def _exists(source: model_uri.ModelUri) -> bool:
    if source.kind == "local":
        # In a thread, because a network disk may not answer.
        return await asyncio.to_thread(Path(source.path).exists)
    objects = remote_objects.RemoteObjects(source)
    try:
        await objects.list()
    except FileNotFoundError:
        if source.kind != "http":
            return False
    else:
        return True
    # Some servers have an answer to GET alone, so their word on HEAD is no proof.
    with contextlib.suppress(FileNotFoundError):
        await objects.get(None)
        return True
    return False
