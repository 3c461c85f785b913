"""What every process of a mesh does first."""

from __future__ import annotations

import logging
import os

from meshserve.logs import log_files

PRIVATE_UMASK = 0o077
"""The mask of permissions by which new files and folders belong to their user alone."""


def begin_process(
    plan: log_files.LogPlan, name: str, level: int = logging.WARNING, others: tuple[str, ...] = ()
) -> None:
    """Let only this user read what the process writes, its log first.

    `level` is that of libraries; `others` are logs of other programs that are to be kept short.
    """
    # On a Ray that we joined, the cluster's own mask holds, which may let everybody read.
    os.umask(PRIVATE_UMASK)
    handler = log_files.to_file(plan, name, *others)
    if plan.takes_output:
        log_files.take_output(handler, level)
