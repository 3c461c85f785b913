"""Loads from the files of the node's cache, which others may write to or remove meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.worker.models import loader

TRIES = 3


async def load(
    storage: model_runtime.Storage,
    recipe: loader.LoadRecipe,
    check: Callable[[loader.LoadRecipe], Awaitable[None]],
    read: Callable[[loader.LoadRecipe], Awaitable[loader.LoadedCopy]],
    discard: Callable[[loader.LoadRecipe, loader.LoadedCopy], None],
) -> loader.LoadedCopy:
    """Return what `read` loads from files that nobody touched since `check` verified them.

    A file that changes under a load is another model, or a failure that is not the model's: it is
    verified, which fetches it again, and loaded again. `discard` frees a copy of changed files, in
    a thread. The artifact is held if the recipe says so. Raises what `check` and `read` raise.
    """
    for _ in range(TRIES):
        await check(recipe)
        try:
            copy = await _read_held(storage, recipe, read)
        except errors.LoadFailed:
            if await storage.is_untouched(recipe.stored):
                raise
            continue
        if await storage.is_untouched(recipe.stored):
            return copy
        await asyncio.to_thread(discard, recipe, copy)
        if recipe.is_held:
            storage.release(recipe.stored)
    raise errors.LoadFailed(
        "the model's files in the cache changed or went away whenever it was loaded",
        retry_after_s=1.0,
    )


async def _read_held(
    storage: model_runtime.Storage,
    recipe: loader.LoadRecipe,
    read: Callable[[loader.LoadRecipe], Awaitable[loader.LoadedCopy]],
) -> loader.LoadedCopy:
    if not recipe.is_held:
        return await read(recipe)
    storage.hold(recipe.stored)
    try:
        return await read(recipe)
    except BaseException:
        storage.release(recipe.stored)
        raise
