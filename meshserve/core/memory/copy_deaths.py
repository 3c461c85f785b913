"""What follows when the process of a loaded copy dies: the copy leaves, and comes back later."""

from __future__ import annotations

from meshserve import errors
from meshserve.core import backoff
from meshserve.core.memory import copies, lease_requests, memory_pool
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import IDLE, CopyPhase

BACKOFF = backoff.BackoffPolicy(base_s=1.0, cap_s=60.0, calm_s=60.0, is_first_immediate=True)
"""The waits before a copy whose process died is loaded again.

The first death may be an accident, such as the kernel's choice when memory was short, so the next
request loads the copy at once. One that ran for a minute did not die in a row.
"""


class CopyDeaths:
    """Frees copies whose processes died, and keeps them from coming back too fast."""

    def __init__(
        self, pool: memory_pool.MemoryPool, requests: lease_requests.LeaseRequests
    ) -> None:
        self._pool = pool
        self._requests = requests

    def record(self, event: ev.CopyDied) -> None:
        """Free the copy with its last lease; a request after its back-off loads it again."""
        copy = self._pool.copies.get(event.key)
        # A move between the devices that fails with the process is answered by DeviceMoveFailed,
        # and a copy that is being freed by CopyFreed.
        if copy is None or copy.state not in IDLE | {CopyPhase.DRAINING}:
            return
        now_s = self._pool.now_s
        if copy.deaths is None:
            copy.deaths = backoff.Backoff(BACKOFF)
        copy.deaths.record_failure(now_s, now_s - copy.loaded_s)
        copy.failure = copies.LoadFailure(errors.LoadDied(str(event.death)), copy.deaths)
        self._pool.changed |= copy.names
        self._pool.history.note("died", copy.names, now_s, copy.failure.error.message)
        # Otherwise those who wait get the next load, which may begin at once.
        if not copy.deaths.is_due(now_s):
            self._requests.refuse_all(copy, copy.failure.refusal(now_s))
        # A draining copy is freed with its last lease anyway.
        if copy.state is not CopyPhase.DRAINING:
            # Also where it is pinned, because nothing of it is left to be kept.
            copy.is_unload_requested = True
            self._pool.update(copy)
