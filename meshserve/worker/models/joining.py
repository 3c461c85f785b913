"""Whether one copy's requests are joined, and the watch over runs in which they are.

Joining needs proof, or the word of the model's kind or owner. It is watched all the same: the first
joined runs of a copy, and some of the later ones, are repeated request by request; a difference
ends joining.
"""

from __future__ import annotations

import enum

from meshserve.core.values import model

FIRST_RUNS = 8
"""Joined runs of a copy of which every request is repeated alone."""

SAMPLED_EVERY = 200
"""Of so many later joined runs, one is checked by repeating two of its requests alone.

That takes at most 1 % of the time of all requests, since no request runs longer alone than in
its joined run.
"""

SAMPLED_REQUESTS = 2


class JoinState(enum.Enum):
    """NEVER: not asked for. UNPROVEN: not yet shown. JOINED, and STOPPED by a difference."""

    NEVER = "never"
    UNPROVEN = "unproven"
    PROVING = "proving"
    JOINED = "joined"
    STOPPED = "stopped"


class Joining:
    """The joining of one copy.

    `reason` is why its requests are not joined, if that is known. `is_wanted`: requests waited that
    could have been joined. `is_learned`: the state came of a proof or of the watch. Several threads
    may read it; one at a time runs joined requests.
    """

    __slots__ = ("_is_told", "_runs", "is_learned", "is_wanted", "reason", "rows", "state")

    def __init__(self, state: JoinState, reason: str = "", runs: int = 0) -> None:
        self.state = state
        self.reason = reason
        self.is_wanted = False
        self._runs = runs
        self.rows = 0
        self._is_told = False
        self.is_learned = False

    @property
    def is_on(self) -> bool:
        """Return whether requests are joined now."""
        return self.state is JoinState.JOINED

    def note_demand(self) -> None:
        """Remember that requests waited which could have been joined."""
        self.is_wanted = self.state is JoinState.UNPROVEN

    def begin_proof(self) -> bool:
        """Return whether a proof is wanted, and was not begun before."""
        if not self.is_wanted:
            return False
        self.is_wanted = False
        self.state = JoinState.PROVING
        return True

    def end_proof(self, reason: str | None) -> None:
        """Join from now on, or never, because of `reason`; a stop meanwhile counts more."""
        if self.state is JoinState.STOPPED:
            return
        self.state = JoinState.JOINED if reason is None else JoinState.NEVER
        self.reason = reason or ""
        self.is_learned = True

    def give_up_proof(self, reason: str) -> None:
        """Leave it unproven until the copy is loaded again."""
        self.state = JoinState.NEVER
        self.reason = reason

    def count_run(self) -> int:
        """Count a joined run; return how many of its requests are to be repeated: -1 is all."""
        self._runs += 1
        if self._runs <= FIRST_RUNS:
            return -1
        return SAMPLED_REQUESTS if self._runs % SAMPLED_EVERY == 0 else 0

    def take_rows(self) -> int:
        """Return the rows that were answered by joined runs since the last call."""
        rows, self.rows = self.rows, 0
        return rows

    def stop(self, reason: str) -> None:
        """Join no more: a joined run gave another answer than a request alone."""
        # The event loop reads the reason as soon as it sees the state.
        self.reason = reason
        self.is_learned = True
        self.state = JoinState.STOPPED

    def adopt_stop(self, reason: str) -> None:
        """Join no more, because another worker has told it, which was counted there."""
        if self.state is not JoinState.STOPPED:
            self._is_told = True
            self.stop(reason)

    def take_stop(self) -> bool:
        """Return whether joining has stopped, once."""
        if self.state is not JoinState.STOPPED or self._is_told:
            return False
        self._is_told = True
        return True

    def for_new_copy(self) -> Joining:
        """Return the same verdict for a copy that is loaded again, to be watched from the start."""
        copied = Joining(self.state, self.reason)
        # A stop was told and counted when it was found.
        copied._is_told = True
        return copied


def first_verdict(signature: model.Signature, spec: model.ModelSpec) -> Joining:
    """Return how the joining of a model begins that was never loaded before."""
    if spec.batching is False:
        return Joining(JoinState.NEVER, "batching is off")
    if signature.can_join:
        return Joining(JoinState.JOINED)
    if signature.has_batch_dimension:
        return Joining(JoinState.UNPROVEN)
    return Joining(JoinState.NEVER, "its first dimension is no batch")
