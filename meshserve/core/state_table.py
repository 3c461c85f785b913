"""Lifecycles as tables: which state follows which move."""

from __future__ import annotations

import collections
import enum
from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

StateT = TypeVar("StateT", bound=enum.Enum)
MoveT = TypeVar("MoveT", bound=enum.Enum)


class IllegalMove(AssertionError):
    """A bug of ours: the table has no such move. The message holds the object's history.

    Not a MeshError: no user could have caused it, and it must not be handled as an answer.
    """


class Lifecycle(Generic[StateT, MoveT]):
    """All legal moves of one kind of object; `subject` names the kind in error messages."""

    def __init__(self, subject: str, moves: Mapping[tuple[StateT, MoveT], StateT]) -> None:
        self.subject = subject
        self.moves = moves

    def after(self, state: StateT, move: MoveT, history: Iterable[MoveT] = ()) -> StateT:
        """Return the state that follows `move`. Raises IllegalMove if the table has none.

        `history` holds the object's last moves, oldest first; only the error message uses it.
        """
        following = self.moves.get((state, move))
        if following is None:
            past = ", ".join(str(past_move.value) for past_move in history) or "not recorded"
            raise IllegalMove(
                f"a {self.subject} that is {state.value} can't be {move.value}; "
                f"moves before: {past}"
            )
        return following


class MoveLog(Generic[StateT, MoveT]):
    """Makes moves and remembers the last `length` of them over all objects of one owner.

    One short log for all objects costs nothing per object, and still tells the story of the one
    whose move was illegal.
    """

    def __init__(self, lifecycle: Lifecycle[StateT, MoveT], length: int = 256) -> None:
        self._lifecycle = lifecycle
        self._moves: collections.deque[tuple[Hashable, MoveT]] = collections.deque(maxlen=length)

    def after(self, key: Hashable, state: StateT, move: MoveT) -> StateT:
        """Return the state that follows `move` of the object `key`, and remember the move.

        Raises IllegalMove, with the object's last moves, if the table has none.
        """
        # The table is read first, because collecting the history walks the whole log.
        following = self._lifecycle.moves.get((state, move))
        if following is None:
            return self._lifecycle.after(state, move, self.history(key))
        self._moves.append((key, move))
        return following

    def history(self, key: Hashable) -> tuple[MoveT, ...]:
        """Return the remembered moves of the object `key`, oldest first."""
        return tuple(move for other, move in self._moves if other == key)
