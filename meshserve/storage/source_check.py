"""The check of a source before a model is registered: whether anything is there."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from meshserve import errors
from meshserve.storage import model_uri, remote_objects

CHECK_S = 5.0
"""A store that does not answer in this time is not known to lack the source."""


async def check_exists(uri: str) -> None:
    """Raise InvalidRequest if nothing is at the URI, or if no source can have it.

    Sources that can't be reached pass, and so does all of http: a server may answer GET alone.
    """
    try:
        source = model_uri.parse(uri)
    except errors.LoadFailed as error:
        raise errors.InvalidRequest(error.message) from None
    is_missing = False
    if source.kind == "local":
        is_missing = not await asyncio.to_thread(Path(source.path).exists)
    elif source.kind == "objects":
        is_missing = await _has_no_object(source)
    if is_missing:
        raise errors.InvalidRequest(f"there is nothing at {source.shown}")


async def _has_no_object(source: model_uri.ModelUri) -> bool:
    unreachable = (*remote_objects.EXPECTED, errors.LoadFailed, TimeoutError)
    # FileNotFoundError is an OSError too, so it is asked for first.
    with contextlib.suppress(*unreachable):
        try:
            async with asyncio.timeout(CHECK_S):
                await remote_objects.RemoteObjects(source).list()
        except FileNotFoundError:
            return True
    return False
