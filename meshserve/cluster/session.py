"""Start a Ray cluster on this machine, or join one that already runs."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import exceptions, job_config
from ray._private.authentication import authentication_token_setup

from meshserve import errors
from meshserve.client import channels
from meshserve.cluster import named_actors, ray_privacy, ray_processes

AUTO = "auto"
HEALTH_S = 5.0
OBJECT_STORE_BYTES = 80 << 20
"""Ray's minimum: no request and no model passes through its object store."""

SOCKET_BYTES_MAX = len("/ray/session_2026-01-02_03-04-05_678901_4194304/sockets/plasma_store")
"""How much longer than the folder given to `begin`, without its last part, Ray's sockets are."""

SYSTEM_CONFIG = {
    "worker_niceness": 0,
    "memory_monitor_refresh_ms": 0,
    **ray_processes.NO_PRESTART,
}
"""What differs from Ray's defaults, which are meant for tasks that may wait and be repeated.

Niceness 15 would give Envoy, workers and engines the CPU after all other programs. Ray's memory
monitor kills controller, gateway and workers, small as they are, when another program takes the
machine's memory; ours are bounded by the pools' budgets. A joined cluster keeps its own values
(docs/decisions/0080).
"""

JOIN_HINT = (
    "Where it wants a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
)

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""What keeps Python from looking for modules in the current folder, also in an actor's children."""

NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
"""ONNX Runtime, from 1.29 on, tells Microsoft of processes and models unless this is set before its
import. Source: Privacy.md of its package."""


class SafePathJob(job_config.JobConfig):
    """The settings of a Ray job whose actors import nothing from the folder of their start.

    Ray puts the current folder and that of the driver's program first on its workers' `sys.path`,
    except for a job that brings a folder of its own.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Give the job's actors these environment variables."""
        super().__init__(runtime_env={"env_vars": variables} if variables else None)

    # Private API: no option of `ray.init` leaves the two folders out.
    def _runtime_env_has_working_dir(self) -> bool:
        return True


def begin(temp_dir: str, *, has_dashboard: bool = False) -> None:
    """Start a Ray cluster on this machine that ends with this process. Raises Unavailable.

    It listens on 127.0.0.1 alone, and asks for a token that is beside `temp_dir`.
    """
    token = ray_privacy.private_start(Path(f"{temp_dir}.token"))
    few = ray_processes.few(has_dashboard=has_dashboard)
    # In the cluster's own environment, because an actor waits for a job's to be made for it.
    variables = ray_processes.inheriting(SAFE_PATH | NO_TELEMETRY)
    with _keeping_signals_and_logs(), _telling_failures(), token, few, variables:
        ray.init(
            job_config=SafePathJob({}),
            namespace=named_actors.NAMESPACE,
            include_dashboard=has_dashboard,
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _system_config=SYSTEM_CONFIG,
            _node_ip_address="127.0.0.1",
            _temp_dir=temp_dir,
        )


@contextlib.contextmanager
def _telling_failures() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError, exceptions.RayError) as error:
        raise errors.Unavailable(f"Ray can't start on this machine: {error}") from error


@contextlib.contextmanager
def _keeping_signals_and_logs() -> Iterator[None]:
    # `ray.init` replaces the SIGTERM handler and prints warnings, which only the caller should do.
    handler = signal.getsignal(signal.SIGTERM)
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def join(address: str) -> None:
    """Join the Ray cluster at `address`, which is `auto` or HOST:PORT.

    Raises Unavailable if no cluster answers, ConfigInvalid if `address` is malformed.
    """
    target = os.environ.get("RAY_ADDRESS", AUTO) if address == AUTO else address
    if target != AUTO:
        _check_health(target)
    try:
        with _keeping_signals_and_logs():
            if _is_loopback(target):
                # Private API: clusters of `ray start` require the token, but `ray.init` reads this
                # machine's token file only for the address `auto`, not for an explicit one.
                authentication_token_setup.maybe_enable_token_auth_if_token_available(
                    warn_if_disabled=False
                )
            ray.init(
                address,
                job_config=SafePathJob(SAFE_PATH | NO_TELEMETRY),
                namespace=named_actors.NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, exceptions.RayError) as error:
        raise errors.Unavailable(
            f"the Ray cluster at {address} can't be joined: {error}. {JOIN_HINT}"
        ) from error


def _is_loopback(address: str) -> bool:
    # The token file of this machine must not be sent to any other machine.
    host = address.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _check_health(address: str) -> None:
    # Without this check `ray.init` tries for many minutes to join a cluster that does not exist.
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise errors.ConfigInvalid(f"--address {address}: expected auto or HOST:PORT")
    try:
        channels.check_health(address, HEALTH_S)
    except errors.MeshError as error:
        raise errors.Unavailable(f"no Ray cluster answers at {address}: {error.message}") from error


def own_node() -> str:
    """Return the id of the node on which this process has joined the cluster."""
    return str(ray.get_runtime_context().get_node_id())


def has_lost_gcs() -> bool:
    """Return whether the GCS of a cluster that `begin` started has ended; never of a joined one."""
    # Private API: nothing else tells before Ray's own libraries end this process, after a minute.
    node: Any = ray._private.worker._global_node  # noqa: SLF001
    started = node.all_processes.get("gcs_server", ()) if node is not None else ()
    return any(entry.process.poll() is not None for entry in started)


def end() -> None:
    """Leave the cluster; a cluster that `begin` started ends."""
    ray.shutdown()
