"""What happens in a process while a load of it is measured."""

from __future__ import annotations

from dataclasses import dataclass

from meshserve.worker.models import run_journal


@dataclass(slots=True, eq=False)
class LoadWindow:
    """The time during which one load runs, and what happens beside it.

    After `until_s`, on the event loop's clock, the load counts as hanging. `is_disturbed`: another
    load overlapped. `freed_bytes` were freed by other threads meanwhile. The `journal` knows what
    else runs.
    """

    until_s: float
    journal: run_journal.RunJournal | None = None
    is_disturbed: bool = False
    freed_bytes: int = 0
    _begun: int = 0
    _was_busy: bool = False

    def __post_init__(self) -> None:
        if self.journal is not None:
            self._begun, self._was_busy = self.journal.begun, self.journal.is_busy

    @property
    def has_runs(self) -> bool:
        """Whether code of other copies has run in threads since the window was opened."""
        # The load itself is one.
        return self.journal is not None and (self._was_busy or self.journal.begun > self._begun + 1)
