"""Create, call and end named Ray actors. Ray's exceptions become errors.Unavailable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray import exceptions
from ray.util import scheduling_strategies

from meshserve import errors, tasks

NAMESPACE = "meshserve"
CALL_S = 10.0
POLL_S = 0.05

T = TypeVar("T")
logger = logging.getLogger(__name__)


async def run_to_end(call: Callable[..., T], *args: object) -> T:
    """Run a blocking call in a thread and return its result.

    If this is cancelled it waits for the call to finish first, so that a half-created actor or
    placement group exists by name and can be removed.
    """
    running = tasks.spawn(asyncio.to_thread(call, *args), "run to end", is_awaited=True)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def on_node(node: str) -> scheduling_strategies.NodeAffinitySchedulingStrategy:
    """Return Ray's scheduling strategy for an actor that may run only on this node."""
    # Nowhere else: a gateway is its node's own, and GPUs are booked on a node.
    return scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)


class NamedActors:
    """The actors of one mesh by name, also those that an earlier controller created."""

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}

    async def names(self, prefix: str) -> list[str]:
        """Return the names of all actors that begin with `prefix`."""
        return [
            name
            for name in await asyncio.to_thread(ray.util.list_named_actors)
            if name.startswith(prefix)
        ]

    async def create(
        self, name: str, actor_class: type, options: dict[str, Any], *args: object
    ) -> None:
        """Create an actor that outlives this process. Raises Unavailable if Ray refuses."""
        remote_class: Any = ray.remote(actor_class).options(
            name=name, namespace=NAMESPACE, lifetime="detached", **options
        )
        try:
            self._handles[name] = await run_to_end(remote_class.remote, *args)
        except (ValueError, exceptions.RayError) as error:
            raise errors.Unavailable(f"{name} can't be started: {error}") from error

    async def call(self, name: str, method: str, *args: object, timeout_s: float = CALL_S) -> Any:
        """Call an actor's method and return its result.

        Raises the MeshError that the method returned, or Unavailable if the actor does not exist,
        dies or does not answer in time.
        """
        handle = await self.handle(name)
        try:
            async with asyncio.timeout(timeout_s):
                result = await getattr(handle, method).remote(*args)
        except exceptions.RayTaskError as error:
            # Before TimeoutError: Ray gives this error the class of its cause as a second base.
            raise errors.Unavailable(f"{name}: {one_line(error)}") from None
        except TimeoutError:
            raise errors.Unavailable(f"{name} does not answer within {timeout_s:g} s") from None
        except exceptions.RayActorError as error:
            # A new actor of this name has a new handle.
            self._handles.pop(name, None)
            raise errors.Unavailable(f"{name} is gone: {one_line(error)}") from None
        except exceptions.RayError as error:
            raise errors.Unavailable(f"{name}: {one_line(error)}") from None
        if isinstance(result, errors.MeshError):
            raise result
        return result

    async def handle(self, name: str) -> Any:
        """Return Ray's handle of the actor. Raises Unavailable if it does not exist."""
        handle = self._handles.get(name)
        if handle is None:
            try:
                handle = await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
            except ValueError:
                raise errors.Unavailable(f"{name} is not there") from None
            self._handles[name] = handle
        return handle

    async def exists(self, name: str) -> bool:
        """Return whether the actor exists."""
        try:
            await self.handle(name)
        except errors.Unavailable:
            return False
        return True

    async def wait_until_ended(self, name: str) -> str:
        """Wait until the actor has ended or its `live` has returned; return the reason.

        Returns at once if the actor does not exist.
        """
        try:
            handle = await self.handle(name)
            reason = await handle.live.remote()
        except errors.Unavailable as error:
            return error.message
        except exceptions.RayError as error:
            # A new actor of this name has a new handle.
            if self._handles.get(name) is handle:
                del self._handles[name]
            return one_line(error)
        return str(reason) if reason else "it ended"

    async def stop(self, name: str, timeout_s: float) -> None:
        """Call the actor's `stop`, then end it. Does nothing if the actor does not exist."""
        if not await self.exists(name):
            return
        try:
            await self.call(name, "stop", timeout_s=timeout_s)
        except errors.Unavailable as error:
            logger.warning("%s did not stop in good order: %s", name, error.message)
        await self.remove(name)

    async def remove(self, name: str) -> None:
        """Kill the actor and return when its name is free. Raises Unavailable if it stays."""
        if not await self.exists(name):
            return
        handle = self._handles.pop(name)
        await asyncio.to_thread(ray.kill, handle)
        try:
            async with asyncio.timeout(CALL_S):
                # Ray gives no event for a name that became free.
                while name in await asyncio.to_thread(ray.util.list_named_actors):
                    self._handles.pop(name, None)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise errors.Unavailable(f"{name} has not ended within {CALL_S:g} s") from None


def one_line(error: exceptions.RayError) -> str:
    """Return the cause in one line, without the colours and tracebacks of Ray's messages."""
    if isinstance(error, exceptions.RayTaskError) and error.cause is not None:
        return f"{type(error.cause).__name__}: {error.cause}"
    first, *rest = str(error).strip().splitlines() or [type(error).__name__]
    # An error in a constructor has a general first line; its last line names the error.
    return rest[-1] if rest and "creation task" in first else first
