"""What all our actors have in common: errors as values, their node, their folder of sockets."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import stat
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import ray

from meshserve import errors
from meshserve.cluster import process_watch
from meshserve.core.values import model
from meshserve.worker.models import run_journal

P = ParamSpec("P")
T = TypeVar("T")

NODE_CHARS = 8
"""How much of a node's id names its folder: the paths of sockets have little room."""

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
    run_dir = node_folder(address.run_dir, has_nodes=bool(address.secret))
    return dataclasses.replace(address, run_dir=run_dir, node=node_id(), host=host)


def node_folder(run_dir: str, *, has_nodes: bool) -> str:
    """Return the folder for the sockets of this node: its own one if the mesh `has_nodes`."""
    # Nodes may share a file system, where each would take the others' sockets for its own.
    return f"{run_dir}/{node_id()[:NODE_CHARS]}" if has_nodes else run_dir


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


def leave_run_dir(run_dir: str) -> None:
    """Remove this node's folder if this process, which has stopped, is the last one that uses it.

    Another process that stops at the same time does the same, so one of them removes it.
    """
    if not process_watch.is_last_to_leave(run_dir):
        return
    for folder in (run_journal.folder(run_dir), run_dir):
        shutil.rmtree(folder, ignore_errors=True)
    if Path(run_dir).name == node_id()[:NODE_CHARS]:
        # It is not empty where other nodes share the file system.
        with contextlib.suppress(OSError):
            Path(run_dir).parent.rmdir()
