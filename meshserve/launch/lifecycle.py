"""Starts a mesh, and ends it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from meshserve import config, errors
from meshserve.client import admin
from meshserve.cluster import controller_actor, controller_process, session
from meshserve.launch import (
    compose,
    leftovers,
    mesh_file,
    process_start,
    secret_file,
    start_checks,
    start_status,
    state_lock,
)
from meshserve.logs import log_files
from meshserve.protocol import mesh_status
from meshserve.worker.models import run_journal

POLL_S = 0.1
WATCH_S = 1.0
READY_S = 120.0
DRAIN_S = 90.0
TAKE_OVER = "MESHSERVE_TAKE_OVER"
"""Set to 1 in the environment, it has `up` take the registry from another mesh that writes it."""

ReportProgress = Callable[[start_status.StartProgress], None]


class RunningMesh:
    """A mesh that this process started. Leaving the context drains and ends it."""

    def __init__(
        self,
        endpoint: str,
        controller: controller_actor.ControllerHandle,
        state_dir: Path,
        owned: contextlib.ExitStack,
    ) -> None:
        """`owned` is what ends with the mesh: its temporary files, and the lock on its state."""
        self.endpoint = endpoint
        self.is_lost = False
        self._controller = controller
        self._state_dir = state_dir
        self._owned = owned

    def wait(self) -> None:
        """Return when the mesh has been ended from elsewhere, or `is_lost`.

        It is lost when its Ray's GCS has ended: requests are answered for another minute, but
        nothing can be started or found.
        """
        # Polled, because Ray gives no event for the end of an actor to a process outside it.
        while not session.has_lost_gcs():
            if controller_actor.find_controller() is None:
                return
            time.sleep(WATCH_S)
        self.is_lost = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Drain the mesh, end all its processes, and remove its temporary files.

        A lost one can't be drained, and its Ray does not answer: its processes are killed.
        """
        try:
            if not self.is_lost:
                self._controller.drain(DRAIN_S)
        finally:
            if not self.is_lost:
                session.end()
            mesh_file.remove(self._state_dir)
            secret_file.remove_owner_key(self._state_dir)
            self._owned.close()

    def detach(self) -> None:
        """Leave the mesh running on the cluster that it joined, and end this process's part."""
        mesh = mesh_file.read(self._state_dir)
        if mesh is not None:
            mesh_file.write(self._state_dir, mesh._replace(pid=0))
        session.end()


def up(
    settings: config.Config,
    config_path: str,
    address: str | None,
    report: ReportProgress,
) -> RunningMesh:
    """Start a mesh on a Ray cluster of its own, or on the one at `address`; return once ready.

    Raises a MeshError with the reason if it cannot start; nothing is left running then.
    """
    # Ray's processes, and ours below them, inherit it.
    os.umask(process_start.PRIVATE_UMASK)
    with contextlib.ExitStack() as stack:
        stack.enter_context(state_lock.held(settings.state_dir))
        if address is None:
            # Nodes of another cluster may have what this one lacks.
            start_checks.check(settings)
        run_dir = start_checks.make_run_dir(has_ray=address is None)
        _own(stack, run_dir, mesh_file.logs_dir(settings.state_dir), has_ray=address is None)
        try:
            controller = _start_controller(settings, run_dir, address, report)
        except BaseException:
            session.end()
            raise
        endpoint = client_endpoint(settings.gateway.listen)
        mesh = RunningMesh(endpoint, controller, settings.state_dir, stack.pop_all())
    try:
        status = _wait_until_ready(controller, report)
        path = str(Path(config_path).absolute())
        file = mesh_file.MeshFile(endpoint, os.getpid(), path, status["mesh_id"], address or "")
        mesh_file.write(settings.state_dir, file)
    except BaseException:
        mesh.end()
        raise
    return mesh


def _own(stack: contextlib.ExitStack, run_dir: Path, logs_dir: Path, *, has_ray: bool) -> None:
    """Have the folder removed with the stack; with a Ray of its own, what its processes leave too.

    This is done even if this process is killed. The ends of Ray's logs are kept in `logs_dir`.
    """
    if not has_ray:
        stack.callback(shutil.rmtree, run_dir, ignore_errors=True)
        return
    logs_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / leftovers.LOGS).symlink_to(logs_dir)
    journals = run_journal.folder(str(run_dir / "run"))
    stack.callback(leftovers.end_guard, leftovers.begin_guard(run_dir, journals))
    stack.callback(leftovers.remove, run_dir, journals)


def _start_controller(
    settings: config.Config, run_dir: Path, address: str | None, report: ReportProgress
) -> controller_actor.ControllerHandle:
    report(start_status.StartProgress("ray", 0, 1))
    if address is None:
        session.begin(str(run_dir / "ray"), has_dashboard=settings.ray.dashboard)
    else:
        session.join(address)
    report(start_status.StartProgress("ray", 1, 1))
    report(start_status.StartProgress("controller", 0, 1))
    plan = _controller_plan(settings, run_dir, is_joined=address is not None)
    return controller_actor.start_controller(functools.partial(compose.build_control_plane, plan))


def _controller_plan(
    settings: config.Config, run_dir: Path, *, is_joined: bool
) -> controller_process.ControllerPlan:
    return controller_process.ControllerPlan(
        document=json.dumps(config.document(settings)),
        registry_url=settings.registry_url,
        state_dir=str(settings.state_dir),
        logs=log_files.LogPlan(
            str(mesh_file.logs_dir(settings.state_dir)),
            settings.logging.format,
            takes_output=True,
            access=settings.logging.access_log,
        ),
        # The controller removes its folder when it ends. A Ray of our own, whose files are in
        # `run_dir` too, ends after it.
        run_dir=str(run_dir if is_joined else run_dir / "run"),
        # Other nodes' gateways connect over the network. On one node nothing listens there.
        secret=secret_file.get_secret(settings.state_dir) if is_joined else "",
        owner_key=secret_file.create_owner_key(settings.state_dir),
        is_taking_over=os.environ.get(TAKE_OVER) == "1",
    )


def _wait_until_ready(
    controller: controller_actor.ControllerHandle, report: ReportProgress
) -> mesh_status.MeshStatus:
    end_s = time.monotonic() + READY_S
    while True:
        status = _status(controller, end_s)
        if status is not None:
            for step in start_status.progress(status):
                report(step)
            # LLMs are not waited for: an engine takes minutes, or waits for a free GPU.
            if status["state"] == "ready":
                return status
        if time.monotonic() > end_s:
            raise errors.Unavailable(
                f"the mesh is not ready after {READY_S:g} s{start_status.failures(status)}"
            )
        time.sleep(POLL_S)


def _status(
    controller: controller_actor.ControllerHandle, end_s: float
) -> mesh_status.MeshStatus | None:
    try:
        return controller.status(READY_S)
    except controller_actor.NoAnswer:
        # Ray restarts a controller that died while it started.
        if time.monotonic() > end_s or controller_actor.find_controller() is None:
            raise
        return None


def client_endpoint(listen: str) -> str:
    """Return the URL of a mesh on this machine that listens at HOST:PORT.

    What the gateway listens on may be no address for a client, such as 0.0.0.0.
    """
    host, _, port = listen.rpartition(":")
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '', '[::]') else host}:{port}"


def find_running(state_dir: Path) -> str | None:
    """Return the endpoint of the mesh with this state directory, None if there is none.

    A process that holds the directory is a mesh, though its gateway may not answer, or not yet.
    """
    mesh = mesh_file.read(state_dir)
    pid = state_lock.find_holder(state_dir)
    if pid is not None:
        return mesh.endpoint if mesh is not None else f"process {pid}, which starts a mesh,"
    if mesh is not None and mesh.address:
        # It goes on without the process that started it, and its gateway may not answer.
        return mesh.endpoint
    return mesh_file.running_endpoint(state_dir)


def down(state_dir: Path, endpoint: str | None) -> None:
    """End the mesh at `endpoint`, or the one that was started with this state directory.

    Sends SIGTERM to the process that holds the mesh, or a drain request if no process of this
    machine does. Returns when the process has ended or the mesh takes no more requests.
    Raises Unavailable if no mesh is known, if it does not end in time, or if nobody can tell
    whether it has ended: one that joined a Ray cluster goes on when its process is killed.
    """
    mesh = mesh_file.read(state_dir)
    is_own = endpoint is None or (mesh is not None and mesh.endpoint == endpoint)
    # The noted pid is not asked: after a crash it may be another program's.
    pid = state_lock.find_holder(state_dir) if is_own else None
    if pid is not None:
        _end_process(pid)
    elif is_own and mesh is not None:
        # A Ray cluster of its own has ended with the process.
        if mesh.address or not mesh.pid:
            _require_identity(state_dir, mesh)
            _drain(mesh.endpoint)
        _forget(state_dir)
    elif endpoint:
        _drain(endpoint)
    else:
        raise errors.Unavailable("no mesh was started from this machine")


def _require_identity(state_dir: Path, mesh: mesh_file.MeshFile) -> None:
    """Raise Unavailable unless the noted mesh answers at its endpoint."""
    where = f" on the Ray cluster at {mesh.address}" if mesh.address else ""
    doubt = (
        f"the mesh{where} may still run. Run `down` again when it answers; if it has ended, remove "
        f"{state_dir / mesh_file.NAME}"
    )
    with admin.AdminClient(mesh.endpoint) as client:
        if not client.is_answering():
            raise errors.Unavailable(f"no mesh answers at {mesh.endpoint}, but {doubt}")
        # Files of earlier versions don't say which mesh is meant.
        if mesh.mesh_id and client.status().get("mesh_id") != mesh.mesh_id:
            raise errors.Unavailable(f"another mesh answers at {mesh.endpoint}, and {doubt}")


def _forget(state_dir: Path) -> None:
    """Remove the file of a mesh that has ended, unless another one has begun meanwhile."""
    with contextlib.suppress(errors.Unavailable), state_lock.held(state_dir):
        mesh_file.remove(state_dir)
        secret_file.remove_owner_key(state_dir)


def _end_process(pid: int) -> None:
    # A pidfd, because a number may be given to another process between the signal and the wait.
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        has_ended, _, _ = select.select([process], [], [], DRAIN_S)
    finally:
        os.close(process)
    if not has_ended:
        raise errors.Unavailable(f"process {pid} has not ended within {DRAIN_S:g} s")


def _drain(endpoint: str) -> None:
    with admin.AdminClient(endpoint) as client:
        client.drain()
        end_s = time.monotonic() + DRAIN_S
        while client.is_answering():
            if time.monotonic() > end_s:
                raise errors.Unavailable(
                    f"the mesh at {endpoint} has not ended within {DRAIN_S:g} s"
                )
            time.sleep(POLL_S)


def starting_llms(endpoint: str, settings: config.Config) -> list[str]:
    """Return the LLMs that always run and are not ready yet; none if the mesh does not answer."""
    try:
        with admin.AdminClient(endpoint, settings.admin_key) as client:
            return start_status.starting_llms(client.status())
    except errors.MeshError:
        return []
