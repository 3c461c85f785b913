"""What one worker thinks of copies whose code may end a process: its own memory of deaths.

The standing of a copy is the table below:

clear       → suspect: suspected, quarantined: convicted
suspect     → suspect: suspected, clear: acquitted, quarantined: convicted
quarantined → suspect: released

Nothing else moves a copy from one standing to another.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from meshserve.core import state_table
from meshserve.core.values import containment


class CopyStanding(enum.Enum):
    """What a worker does with a copy.

    CLEAR: it runs in the worker. SUSPECT: it ran when a worker died, so it runs in a process of its
    own. QUARANTINED: that process died too, so it is not run.
    """

    CLEAR = "clear"
    SUSPECT = "suspect"
    QUARANTINED = "quarantined"


class SuspicionMove(enum.Enum):
    """The moves between the standings of a copy."""

    SUSPECTED = "suspected"
    ACQUITTED = "acquitted"
    CONVICTED = "convicted"
    RELEASED = "released"


LIFECYCLE = state_table.Lifecycle(
    "suspicion",
    {
        (CopyStanding.CLEAR, SuspicionMove.SUSPECTED): CopyStanding.SUSPECT,
        (CopyStanding.CLEAR, SuspicionMove.CONVICTED): CopyStanding.QUARANTINED,
        (CopyStanding.SUSPECT, SuspicionMove.SUSPECTED): CopyStanding.SUSPECT,
        (CopyStanding.SUSPECT, SuspicionMove.ACQUITTED): CopyStanding.CLEAR,
        (CopyStanding.SUSPECT, SuspicionMove.CONVICTED): CopyStanding.QUARANTINED,
        # What a user has released is tried alone first: another death then costs no worker.
        (CopyStanding.QUARANTINED, SuspicionMove.RELEASED): CopyStanding.SUSPECT,
    },
)


@dataclass(slots=True)
class Suspicion:
    """What is held against one copy. `until_s` is the end of its time alone, at the earliest.

    `kills` counts deaths of its own process by a signal that may have come from outside.
    """

    standing: CopyStanding
    until_s: float = 0.0
    reason: str = ""
    kills: int = 0


class Suspicions:
    """The copies of one worker, by key, that are not clear. Times are of one monotonic clock."""

    def __init__(self) -> None:
        self._records: dict[str, Suspicion] = {}
        self._moves = state_table.MoveLog(LIFECYCLE)

    def standing(self, key: str) -> CopyStanding:
        """Return the standing of the copy."""
        record = self._records.get(key)
        return record.standing if record is not None else CopyStanding.CLEAR

    def reason(self, key: str) -> str:
        """Return why the copy is in quarantine, empty if it is not."""
        record = self._records.get(key)
        return record.reason if record is not None else ""

    def keys(self, standing: CopyStanding) -> tuple[str, ...]:
        """Return the copies of this standing; those that are clear are not kept."""
        return tuple(key for key, record in self._records.items() if record.standing is standing)

    def suspect(self, key: str, now_s: float, probation_s: float) -> bool:
        """Suspect a copy for `probation_s` seconds at least; return whether it was clear until now.

        A copy in quarantine stays there. Of several suspicions the one that ends last counts.
        """
        standing = self.standing(key)
        if standing is CopyStanding.QUARANTINED:
            return False
        record = self._moved(key, SuspicionMove.SUSPECTED)
        record.until_s = max(record.until_s, now_s + probation_s)
        return standing is CopyStanding.CLEAR

    def convict(self, key: str, reason: str) -> bool:
        """Put the copy into quarantine; return whether it was not there. `reason` tells users."""
        if self.standing(key) is CopyStanding.QUARANTINED:
            return False
        self._moved(key, SuspicionMove.CONVICTED).reason = reason
        return True

    def count_kill(self, key: str) -> None:
        """Count a death of a suspect's own process by SIGKILL."""
        # One kill convicts nobody, because memory may have been short for other reasons.
        if self.standing(key) is CopyStanding.SUSPECT:
            self._records[key].kills += 1

    def kills(self, key: str) -> int:
        """Return the counted deaths of a suspect's own process."""
        record = self._records.get(key)
        return record.kills if record is not None else 0

    def acquit(self, key: str) -> bool:
        """End a suspicion; return whether there was one."""
        if self.standing(key) is not CopyStanding.SUSPECT:
            return False
        self._moved(key, SuspicionMove.ACQUITTED)
        del self._records[key]
        return True

    def release(self, key: str, now_s: float) -> bool:
        """End a quarantine and suspect the copy instead; return whether there was one."""
        if self.standing(key) is not CopyStanding.QUARANTINED:
            return False
        record = self._moved(key, SuspicionMove.RELEASED)
        record.reason, record.kills = "", 0
        record.until_s = now_s + containment.PROBATION.base_s
        return True

    def is_over(self, key: str, now_s: float) -> bool:
        """Return whether a suspect has been alone long enough."""
        record = self._records.get(key)
        if record is None or record.standing is not CopyStanding.SUSPECT:
            return False
        return now_s >= record.until_s

    def _moved(self, key: str, move: SuspicionMove) -> Suspicion:
        record = self._records.setdefault(key, Suspicion(CopyStanding.CLEAR))
        record.standing = self._moves.after(key, record.standing, move)
        return record
