"""Lifecycle tables: legal moves, illegal ones with their history, and the table in words."""

from __future__ import annotations

import enum

import pytest

from meshserve import errors
from meshserve.core import state_table
from tests.core import diagram


class Door(enum.Enum):
    OPEN = "open"
    SHUT = "shut"
    GONE = "gone"


class Turn(enum.Enum):
    SHUT = "shut"
    OPENED = "opened"
    REMOVED = "removed"


DOORS = state_table.Lifecycle(
    "door",
    {
        (Door.OPEN, Turn.SHUT): Door.SHUT,
        (Door.SHUT, Turn.OPENED): Door.OPEN,
        (Door.SHUT, Turn.REMOVED): Door.GONE,
    },
)


def test_a_legal_move_gives_the_next_state() -> None:
    assert DOORS.after(Door.OPEN, Turn.SHUT) is Door.SHUT


def test_an_illegal_move_is_a_bug_of_ours_and_no_users_error() -> None:
    with pytest.raises(
        state_table.IllegalMove, match="a door that is gone can't be shut"
    ) as caught:
        DOORS.after(Door.GONE, Turn.SHUT)
    assert isinstance(caught.value, AssertionError)
    assert not isinstance(caught.value, errors.MeshError)


def test_an_illegal_move_tells_the_history_of_its_object_alone() -> None:
    log = state_table.MoveLog(DOORS)
    log.after("front", Door.OPEN, Turn.SHUT)
    log.after("back", Door.SHUT, Turn.REMOVED)
    with pytest.raises(state_table.IllegalMove, match=r"moves before: shut$"):
        log.after("front", Door.SHUT, Turn.SHUT)


def test_the_log_forgets_the_oldest_moves() -> None:
    log = state_table.MoveLog(DOORS, length=2)
    for state, move in ((Door.OPEN, Turn.SHUT), (Door.SHUT, Turn.OPENED), (Door.OPEN, Turn.SHUT)):
        log.after("front", state, move)
    assert log.history("front") == (Turn.OPENED, Turn.SHUT)


def test_the_diagram_names_every_move_and_leaves_out_final_states() -> None:
    assert diagram.of(DOORS, Door) == "open → shut: shut\nshut → open: opened, gone: removed"
