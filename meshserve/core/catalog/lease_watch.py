"""Judges whether the registry of another mesh may be taken, from what is seen of its lease."""

from __future__ import annotations

import enum

from meshserve.core.values import registry_contents

BEAT_S = 1.0
"""The pause between two signs of life of the controller that holds the lease."""

SILENCE_S = 6.0
"""How long a holder must give none before it counts as dead.

Longer than a database takes that is started again, shorter than a person waits who starts a mesh
again after its machine has crashed.
"""


class Verdict(enum.Enum):
    """What a look at the lease tells."""

    FREE = "nobody writes, or the holder is dead"
    ALIVE = "the holder has given a sign of life since the last look"
    SILENT = "nothing is known yet"


class LeaseWatch:
    """Looks at the lease of a registry for one mesh, `holder`, until it is free.

    Only this process's own clock counts: what is measured is how long the lease stays as it is.
    """

    def __init__(self, holder: str) -> None:
        self._holder = holder
        self._seen: registry_contents.WriteLease | None = None
        self._seen_s = 0.0

    def look(self, lease: registry_contents.WriteLease, now_s: float) -> Verdict:
        """Return what the lease tells that was read at `now_s`."""
        # The earlier controller of the same mesh has ended, or is to be shut out by this one.
        if lease.holder in ("", self._holder):
            return Verdict.FREE
        before, self._seen = self._seen, lease
        if before != lease:
            self._seen_s = now_s
            return Verdict.SILENT if before is None else Verdict.ALIVE
        return Verdict.FREE if now_s - self._seen_s >= SILENCE_S else Verdict.SILENT
