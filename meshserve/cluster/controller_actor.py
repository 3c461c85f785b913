"""The actor that holds the controller, and the handle by which other processes reach it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import ray
from ray import exceptions

from meshserve import errors
from meshserve.cluster import actor_process, cluster_nodes, named_actors
from meshserve.core.values import events
from meshserve.protocol import mesh_status

T = TypeVar("T")

NAME = "controller"
HEAD_SHARE = 0.001
"""How much of the head's resource a controller asks for: others may want to be there too."""

POLL_S = 0.01


class HostedController(Protocol):
    """The controller inside its actor, running on an event loop of its own."""

    async def run(self) -> None:
        """Start the controller, and return once the mesh has been drained."""
        ...

    async def status(self) -> dict[str, Any]:
        """Return the body of `/mesh/v1/status`."""
        ...

    async def drain(self) -> None:
        """Drain the mesh; return when all its processes have ended."""
        ...

    async def request(self, request: events.NodeRequest) -> list[str]:
        """Grant a request that concerns a node; return in words what it changes."""
        ...


class ControllerActor:
    """Starts a controller in its constructor, and ends itself once the controller is drained.

    So Ray's restart of a killed actor, which calls the constructor, is a full recovery without
    the help of any other process.
    """

    def __init__(self, make: Callable[[], HostedController]) -> None:
        self._controller: HostedController | None = None
        # A loop of its own, because Ray's loop must stay free to answer `status`.
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="controller", daemon=True).start()
        self._running = asyncio.run_coroutine_threadsafe(self._run(make), self._loop)

    async def _run(self, make: Callable[[], HostedController]) -> None:
        self._controller = make()
        await self._controller.run()
        actor_process.kill_this_actor()

    @actor_process.errors_as_values
    async def status(self) -> dict[str, Any]:
        """Return the status of the mesh. Raises the reason if the controller could not start."""
        while self._controller is None and not self._running.done():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(POLL_S)
        if self._controller is None or self._running.done():
            self._raise_failure()
            raise errors.Unavailable("the controller has ended")
        return await self._on_its_loop(self._controller.status())

    @actor_process.errors_as_values
    async def drain(self) -> None:
        """Drain the mesh. A controller that could not start has nothing to drain."""
        if self._controller is not None and not self._running.done():
            await self._on_its_loop(self._controller.drain())

    @actor_process.errors_as_values
    async def request(self, request: events.NodeRequest) -> list[str]:
        """Pass the request on. Raises the MeshError that refuses it."""
        if self._controller is None or self._running.done():
            raise errors.Unavailable("the controller is not there")
        return await self._on_its_loop(self._controller.request(request))

    def _raise_failure(self) -> None:
        failure = self._running.exception()
        if failure is not None and not isinstance(failure, errors.MeshError):
            raise errors.MeshError(f"the controller could not begin: {failure!r}") from failure
        self._running.result()

    async def _on_its_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


class NoAnswer(errors.Unavailable):
    """The controller does not answer: it may be starting, or restarting."""


class ControllerHandle:
    """The controller, as the process that starts a mesh sees it."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def status(self, timeout_s: float) -> mesh_status.MeshStatus:
        """Return the status of the mesh.

        Raises NoAnswer while the controller does not answer, or the reason why it could not start.
        """
        return self._result(self._actor.status.remote(), timeout_s)

    def drain_node(self, node: str, move_s: float, *, is_ended: bool, within_s: float) -> list[str]:
        """Have a node drained; return in words what that changes.

        Raises NoAnswer after `within_s` without an answer, or the MeshError that refuses it.
        """
        wish = events.NodeDrainRequested(node, move_s, is_ended)
        return list(self._result(self._actor.request.remote(wish), within_s))

    def end_node_drain(self, node: str, within_s: float) -> list[str]:
        """Have a node used again. Raises as `drain_node` does."""
        wish = events.NodeDrainEndRequested(node)
        return list(self._result(self._actor.request.remote(wish), within_s))

    def drain(self, timeout_s: float) -> None:
        """Drain the mesh and end the controller. Raises NoAnswer if it does not answer in time."""
        try:
            self._result(self._actor.drain.remote(), timeout_s)
        except NoAnswer:
            # A controller that has ended by itself can't answer, but it is drained.
            if find_controller() is not None:
                raise
        # Ray would restart an actor that only ended.
        ray.kill(self._actor)

    def _result(self, reference: Any, timeout_s: float) -> Any:
        try:
            result = ray.get(reference, timeout=timeout_s)
        except exceptions.GetTimeoutError:
            raise NoAnswer("the controller does not answer") from None
        except exceptions.RayError as error:
            raise NoAnswer(f"the controller is gone: {named_actors.one_line(error)}") from error
        if isinstance(result, errors.MeshError):
            raise result
        return result


def start_controller(make: Callable[[], HostedController]) -> ControllerHandle:
    """Create the controller's actor, which Ray restarts whenever its process dies."""
    actor_class = ray.remote(ControllerActor)
    options = {
        "name": NAME,
        "namespace": named_actors.NAMESPACE,
        "lifetime": "detached",
        "max_restarts": -1,
        "max_task_retries": 0,
        "num_cpus": 0,
        # Beside the GCS, without which it can't act anyway: the loss of any other node leaves it
        # alone, and a restarted one finds the files of the registry.
        "resources": {cluster_nodes.HEAD_RESOURCE: HEAD_SHARE},
    }
    return ControllerHandle(actor_class.options(**options).remote(make))


def find_controller() -> ControllerHandle | None:
    """Return the controller that runs in the cluster, or None."""
    try:
        return ControllerHandle(ray.get_actor(NAME, named_actors.NAMESPACE))
    except ValueError:
        return None
