"""Kill this node's processes that are stopped: their requests go elsewhere, and they start again.

A worker that was stopped would keep its requests until the controller missed three reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from pathlib import Path

from meshserve.storage import living_processes, stopped_processes

logger = logging.getLogger(__name__)

FOLDER = "processes"


def register(run_dir: str) -> None:
    """Have this process watched on its node."""
    try:
        living_processes.register(Path(run_dir) / FOLDER)
    except OSError as error:
        logger.warning("this process is not watched: %s", error)


def is_last_to_leave(run_dir: str) -> bool:
    """Have this process watched no longer; return whether no other one is."""
    folder = Path(run_dir) / FOLDER
    living_processes.deregister(folder)
    return not living_processes.find_others(folder)


async def watch(run_dir: str) -> None:
    """Kill every registered process that is stopped and does not go on; never return."""
    folder, stopped = Path(run_dir) / FOLDER, stopped_processes.StoppedProcesses()
    while True:
        for pid in stopped.look(living_processes.find_others(folder), time.monotonic()):
            logger.error("process %d was stopped and does not go on: it is killed", pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(stopped_processes.POLL_S)
