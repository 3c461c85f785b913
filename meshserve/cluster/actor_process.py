"""What all our actors have in common: errors as values, their node, their folder of sockets."""

from __future__ import annotations

import dataclasses
import functools
import os
import stat
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import ray

from meshserve import errors
from meshserve.cluster import process_watch
from meshserve.core.values import model

P = ParamSpec("P")
T = TypeVar("T")

DRAIN_S = 30.0
"""How long a worker, gateway or replica that stops may take for the requests that it accepted."""


def errors_as_values(
    method: Callable[P, Awaitable[T]],
) -> Callable[P, Coroutine[Any, Any, T | errors.MeshError]]:
    """Decorate an actor's method so that it returns a MeshError instead of raising it."""

    # Ray would wrap a raised error in a RayTaskError and lose its class and its retry_after_s.
    # `named_actors.NamedActors.call` raises the returned error again at the caller.
    @functools.wraps(method)
    async def returning(*args: P.args, **kwargs: P.kwargs) -> T | errors.MeshError:
        try:
            return await method(*args, **kwargs)
        except errors.MeshError as error:
            return error

    return returning


def node_id() -> str:
    """Return the id that Ray gave to the node of this process."""
    return str(ray.get_runtime_context().get_node_id())


def node_address() -> str:
    """Return the IP address under which other nodes reach the node of this process."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def placed(address: model.ServerAddress) -> model.ServerAddress:
    """Return the address on the node of this process; other nodes get a host if it has a secret."""
    host = node_address() if address.secret else ""
    return dataclasses.replace(address, node=node_id(), host=host)


def was_restarted() -> bool:
    """Return whether Ray started this actor again after its process died."""
    return bool(ray.get_runtime_context().was_current_actor_reconstructed)


def kill_this_actor() -> None:
    """End the actor of this process for good: Ray does not restart it."""
    ray.kill(ray.get_runtime_context().current_actor)


def make_run_dir(run_dir: str) -> None:
    """Create the folder for this node's Unix sockets, readable by this user alone.

    This process is watched from then on (`process_watch`). Raises Unavailable if the folder exists
    and others have rights to it.
    """
    path = Path(run_dir)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Whoever knows its name may have made it first, on another node than that of `up`.
    state = path.lstat()
    is_ours = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()
    if not is_ours or stat.S_IMODE(state.st_mode) & 0o077:
        raise errors.Unavailable(f"{run_dir} is not a folder of this user alone")
    process_watch.register(run_dir)
