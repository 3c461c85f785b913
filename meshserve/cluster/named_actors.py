"""Named actors in Ray: made, called, ended. What goes wrong with one is Unavailable, in words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray import exceptions

from meshserve import errors, tasks

NAMESPACE = "meshserve"
CALL_S = 10.0
POLL_S = 0.05

T = TypeVar("T")
logger = logging.getLogger(__name__)


async def to_the_end(call: Callable[..., T], *args: object) -> T:
    """What it gives, from a thread. Who cancels this waits until the call is through: what it made must be there for whoever removes it."""
    running = tasks.spawn(asyncio.to_thread(call, *args), "to the end", is_awaited=True)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


class NamedActors:
    """The actors of one mesh, by name, whoever made them."""

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}

    async def names(self, prefix: str) -> list[str]:
        """The names of those that begin so."""
        return [
            name
            for name in await asyncio.to_thread(ray.util.list_named_actors)
            if name.startswith(prefix)
        ]

    async def create(self, name: str, kind: type, options: dict[str, Any], *args: object) -> None:
        """Make one that outlives this process."""
        make: Any = ray.remote(kind).options(
            name=name, namespace=NAMESPACE, lifetime="detached", **options
        )
        try:
            self._handles[name] = await to_the_end(make.remote, *args)
        except (ValueError, exceptions.RayError) as error:
            raise errors.Unavailable(f"{name} can't be started: {error}") from error

    async def call(self, name: str, method: str, *args: object, timeout_s: float = CALL_S) -> Any:
        """Call an actor's method. Raises its own errors, and Unavailable where it is gone or does not answer."""
        handle = await self.handle(name)
        try:
            async with asyncio.timeout(timeout_s):
                result = await getattr(handle, method).remote(*args)
        except exceptions.RayTaskError as error:
            # It may pass for a TimeoutError of ours: it is of its cause's class as well.
            raise errors.Unavailable(f"{name}: {in_words(error)}") from None
        except TimeoutError:
            raise errors.Unavailable(f"{name} does not answer within {timeout_s:g} s") from None
        except exceptions.RayActorError as error:
            self._handles.pop(name, None)
            raise errors.Unavailable(f"{name} is gone: {in_words(error)}") from None
        except exceptions.RayError as error:
            raise errors.Unavailable(f"{name}: {in_words(error)}") from None
        if isinstance(result, errors.MeshError):
            raise result
        return result

    async def handle(self, name: str) -> Any:
        """Ray's handle of it. Raises Unavailable where it is not there."""
        handle = self._handles.get(name)
        if handle is None:
            try:
                handle = await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
            except ValueError:
                raise errors.Unavailable(f"{name} is not there") from None
            self._handles[name] = handle
        return handle

    async def exists(self, name: str) -> bool:
        """Whether it is there."""
        try:
            await self.handle(name)
        except errors.Unavailable:
            return False
        return True

    async def wait_until_ended(self, name: str) -> str:
        """Returns the reason once it has ended or says so itself (its `live` returns); at once where there is none."""
        try:
            handle = await self.handle(name)
            said = await handle.live.remote()
        except errors.Unavailable as error:
            return error.message
        except exceptions.RayError as error:
            return in_words(error)
        return str(said) if said else "it ended"

    async def stop(self, name: str, timeout_s: float) -> None:
        """Have it end in good order, or else end it. No error where it is not there."""
        if not await self.exists(name):
            return
        try:
            await self.call(name, "stop", timeout_s=timeout_s)
        except errors.Unavailable as error:
            logger.warning("%s did not stop in good order: %s", name, error.message)
        await self.remove(name)

    async def remove(self, name: str) -> None:
        """End what is left of an actor, so that its name is free."""
        if not await self.exists(name):
            return
        handle = self._handles.pop(name)
        await asyncio.to_thread(ray.kill, handle)
        try:
            async with asyncio.timeout(CALL_S):
                while name in await asyncio.to_thread(ray.util.list_named_actors):
                    self._handles.pop(name, None)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise errors.Unavailable(f"{name} has not ended within {CALL_S:g} s") from None


def in_words(error: exceptions.RayError) -> str:
    """What happened, in one line: Ray's own words have colours and tracebacks in them."""
    if isinstance(error, exceptions.RayTaskError) and error.cause is not None:
        return f"{type(error.cause).__name__}: {error.cause}"
    first, *rest = str(error).strip().splitlines() or [type(error).__name__]
    return rest[-1] if rest and "creation task" in first else first
