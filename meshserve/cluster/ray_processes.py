"""Which processes Ray starts for a cluster of our own: no more than a mesh needs."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping

from ray._private import parameter, services, utils

from meshserve import errors

NO_PRESTART = {"prestart_worker_first_driver": False, "enable_worker_prestart": False}
"""Ray's settings against a Python process for each core, made for tasks: a mesh has none."""


@contextlib.contextmanager
def few(*, has_dashboard: bool) -> Iterator[None]:
    """Have a cluster that starts meanwhile do without processes that a mesh does not use.

    These are the monitor, which starts machines of a cloud, the log monitor, which sends the logs
    of actors to drivers, and without `has_dashboard` the dashboard's server. At rest they take 160
    MiB and 1 % of a core, and the cluster starts a second sooner without them. Raises Unavailable
    if the dashboard's libraries are not installed.
    """
    missing = utils.get_dashboard_dependency_error() if has_dashboard else None
    if missing is not None:
        raise errors.Unavailable(
            f"ray.dashboard is on, and its libraries are missing: {missing}. "
            "They come with: pip install 'ray[default]'"
        )
    # Private API: `ray start` has options for some of them, `ray.init` for none.
    parameters, start_dashboard = parameter.RayParams, services.start_api_server
    trimmed = functools.partial(parameters, no_monitor=True)
    trimmed.keywords["include_log_monitor"] = False
    parameter.RayParams = trimmed  # type: ignore[misc,assignment]
    if not has_dashboard:
        services.start_api_server = _start_nothing
    try:
        yield
    finally:
        parameter.RayParams, services.start_api_server = parameters, start_dashboard  # type: ignore[misc]


def _start_nothing(*_: object, **__: object) -> tuple[str, None]:
    """Return what Ray's function returns if no server could be started: its URL and its process."""
    return "", None


@contextlib.contextmanager
def inheriting(variables: Mapping[str, str]) -> Iterator[None]:
    """Give these environment variables to all processes that start meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
