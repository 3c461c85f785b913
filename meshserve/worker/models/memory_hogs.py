"""Kill processes that take the memory of other models.

Without this a worker would free copies of other models for a process that takes all it can get.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshserve.core.values import process_death
from meshserve.worker.models import isolated_process, loader

GROWTH_MAX = 2.0
GROWTH_BYTES_MIN = 64 << 20
"""A process may grow to GROWTH_MAX times its footprint and by these bytes, even if memory is short.

Libraries keep buffers of their biggest run, so other copies give way to such growth.
"""

MIB = 1 << 20


def stop(
    taken_bytes: Mapping[isolated_process.IsolatedProcess, int],
    booked_bytes: Mapping[isolated_process.IsolatedProcess, int],
    budget_bytes: int,
) -> None:
    """Kill those of the processes that grew too far, for a worker that is over its budget.

    `taken_bytes` has what each process takes, `booked_bytes` the footprints of those that serve.
    One that loads may take the budget, and so may the trial of a suspect: in the worker nothing
    bounds the memory of a run, and an innocent model must not be convicted of big requests.
    """
    for process, size_bytes in taken_bytes.items():
        most_bytes = budget_bytes
        if process in booked_bytes:
            grown_bytes = int(GROWTH_MAX * booked_bytes[process]) + GROWTH_BYTES_MIN
            is_trial = loader.tried_key(process.key)
            most_bytes = max(budget_bytes, grown_bytes) if is_trial else grown_bytes
        if size_bytes > most_bytes:
            process.stop(
                f"{process_death.OVER_MEMORY} {size_bytes / MIB:.0f} MiB, and "
                f"{most_bytes / MIB:.0f} MiB is the most for it while its worker's budget, "
                f"{budget_bytes / MIB:.0f} MiB, is used up"
            )
