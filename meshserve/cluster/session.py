"""Ray itself: a cluster of our own on this machine, or one that is there."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray import exceptions
from ray._private.authentication import authentication_token_setup

from meshserve import errors
from meshserve.client import channels
from meshserve.cluster import actors, named_actors, ray_cluster

AUTO = "auto"
HEALTH_S = 5.0
OBJECT_STORE_BYTES = 80 << 20
"""Ray's least: no request and no model passes through its object store."""

SETTINGS = {"worker_niceness": 0}
"""Ray's own is 15, for tasks that may wait. Envoy, workers and engines, all started by actors, would stand behind any other program."""

HOW_TO_SHOW_ONE = (
    "Where it wants a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
)


class NoAnswer(errors.Unavailable):
    """The controller does not answer: it may be beginning, or beginning again."""


def begin(temp_dir: str) -> None:
    """Start a cluster on this machine that ends with this process."""
    with _as_it_was():
        _begin(temp_dir)


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Ray takes SIGTERM for itself and warns of its defaults: both are our caller's to decide."""
    handler = signal.getsignal(signal.SIGTERM)
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _begin(temp_dir: str) -> None:
    ray.init(
        namespace=named_actors.NAMESPACE,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
        _system_config=SETTINGS,
        _node_ip_address="127.0.0.1",
        _temp_dir=temp_dir,
    )


def join(address: str) -> None:
    """Join the cluster at `address` (`auto` or HOST:PORT). Raises Unavailable where there is none, ConfigInvalid for what is no address."""
    there = os.environ.get("RAY_ADDRESS", AUTO) if address == AUTO else address
    if there != AUTO:
        _check_health(there)
    try:
        with _as_it_was():
            if _is_here(there):
                # Ray's own `ray start` asks for this machine's token where there is one, and its client shows it only to `auto`.
                authentication_token_setup.maybe_enable_token_auth_if_token_available(
                    warn_if_disabled=False
                )
            ray.init(
                address,
                namespace=named_actors.NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, exceptions.RayError) as error:
        raise errors.Unavailable(
            f"the Ray cluster at {address} can't be joined: {error}. {HOW_TO_SHOW_ONE}"
        ) from error


def _is_here(address: str) -> bool:
    """Whether the address is this machine's own: the token that it keeps is shown to nobody else."""
    host = address.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _check_health(address: str) -> None:
    """Ray itself tries for many minutes to join a cluster that is not there."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise errors.ConfigInvalid(f"--address {address}: expected auto or HOST:PORT")
    try:
        channels.check_health(address, HEALTH_S)
    except errors.MeshError as error:
        raise errors.Unavailable(f"no Ray cluster answers at {address}: {error.message}") from error


def end() -> None:
    """Leave the cluster; one that we began ends."""
    ray.shutdown()


def was_restarted() -> bool:
    """Whether this process is an actor's that died and was begun anew."""
    return bool(ray.get_runtime_context().was_current_actor_reconstructed)


class ControllerHandle:
    """The controller as the process that starts a mesh sees it."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def status(self, timeout_s: float) -> dict[str, Any]:
        """How the mesh is. Raises NoAnswer while the controller does not answer, and what kept it from beginning."""
        found: dict[str, Any] = self._result(self._actor.status.remote(), timeout_s)
        return found

    def drain(self, timeout_s: float) -> None:
        """End the mesh in good order, and the controller. One that ends meanwhile by itself has done so."""
        try:
            self._result(self._actor.drain.remote(), timeout_s)
        except NoAnswer:
            if find_controller() is not None:
                raise
        ray.kill(self._actor)

    def _result(self, reference: Any, timeout_s: float) -> Any:
        try:
            result = ray.get(reference, timeout=timeout_s)
        except exceptions.GetTimeoutError:
            raise NoAnswer("the controller does not answer") from None
        except exceptions.RayError as error:
            raise NoAnswer(f"the controller is gone: {named_actors.in_words(error)}") from error
        if isinstance(result, errors.MeshError):
            raise result
        return result


def start_controller(make: Callable[[], actors.HostedController]) -> ControllerHandle:
    """Start the controller's actor, which Ray starts again whenever its process ends."""
    kind = ray.remote(actors.ControllerActor)
    options = {
        "name": ray_cluster.CONTROLLER,
        "namespace": named_actors.NAMESPACE,
        "lifetime": "detached",
        "max_restarts": -1,
    }
    return ControllerHandle(kind.options(num_cpus=0, max_task_retries=0, **options).remote(make))


def find_controller() -> ControllerHandle | None:
    """The controller that runs in the cluster, if one does."""
    try:
        return ControllerHandle(ray.get_actor(ray_cluster.CONTROLLER, named_actors.NAMESPACE))
    except ValueError:
        return None
