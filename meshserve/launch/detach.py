"""Starts a mesh that goes on after this process has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from meshserve import config, errors
from meshserve.launch import lifecycle, mesh_file, process_start, start_checks, state_lock

POLL_S = 0.1
ERROR = "error: "
LAST_LINES = 5


def start(settings: config.Config, config_path: str, address: str | None) -> str:
    """Start a mesh detached from this process; return its endpoint once it is ready.

    `settings` were read from `config_path`. Raises Unavailable with the output of the start if it
    failed.
    """
    if address is not None:
        # Its processes belong to the cluster that it joined: none of ours has to stay.
        mesh = lifecycle.up(settings, config_path, address, lambda _: None)
        mesh.detach()
        return mesh.endpoint
    return _start_process(settings, config_path)


def cause(log: str) -> str:
    """Return why a start failed by what it has printed: its error, or else its last lines."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith(ERROR):
            return " ".join(lines[index:]).removeprefix(ERROR)
    return " ".join(lines[-LAST_LINES:]) or "it has printed nothing"


def _start_process(settings: config.Config, config_path: str) -> str:
    state_dir = settings.state_dir
    # Before the log is opened, which may be that of the process that holds the directory.
    state_lock.refuse_if_held(state_dir)
    # Here, because a fault of the machine is told at once, and without what a start prints.
    start_checks.check(settings)
    # A Ray cluster of our own ends with the process that started it, so this one must stay.
    log = mesh_file.logs_dir(state_dir) / "up.log"
    os.umask(process_start.PRIVATE_UMASK)
    with state_lock.telling_the_folder(state_dir):
        log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            # Without -P, `-m` lets the current folder's files stand in for libraries.
            [sys.executable, "-P", "-m", "meshserve.cli", "up", config_path],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Of its own, so that the end of the terminal does not end the mesh.
            start_new_session=True,
        )
    while True:
        mesh = mesh_file.read(state_dir)
        if mesh is not None and mesh.pid == process.pid:
            return mesh.endpoint
        if process.poll() is not None:
            raise errors.Unavailable(f"the mesh did not start: {cause(log.read_text())}")
        time.sleep(POLL_S)
