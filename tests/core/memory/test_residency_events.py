from __future__ import annotations

import dataclasses
import typing

import pytest

from meshserve.core.memory import copies, residency
from meshserve.core.memory import residency_events as ev
from meshserve.core.values import model

EVENTS = typing.get_args(ev.Event)
COMMANDS = typing.get_args(ev.Command)


def test_every_event_has_its_step():
    there = residency.Residency(copies.WorkerLimits(model.Footprint(100)))
    assert set(there._steps) == set(EVENTS)


@pytest.mark.parametrize("kind", EVENTS + COMMANDS)
def test_nobody_changes_what_was_said(kind):
    said = kind(**{field.name: None for field in dataclasses.fields(kind)})
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(said, field.name, 1)
