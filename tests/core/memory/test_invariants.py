"""Each invariant notices when it is broken: these tests break one at a time by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meshserve.core import backoff
from meshserve.core.memory import copies
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import CopyPhase
from meshserve.core.values.model import Footprint
from tests.core.play import BROKEN, Play, id_of


@pytest.fixture
def play() -> Play:
    """Return a worker with models that are ready, in use, loading, queued and being fetched."""
    play = Play(100, loads_parallel=1)
    for name in ("ready", "used", "loading", "queued", "fetching"):
        play.declare(name, 10)
    play.load("ready", "used")
    play.request("used")
    for name in ("loading", "queued"):
        play.request(name)
        play.finish_fetch(name)
    play.request("fetching")
    return play


def set_(name: str, **fields: Any) -> Callable[[Play], None]:
    """Return a function that sets fields of a copy."""

    def break_it(play: Play) -> None:
        for field, value in fields.items():
            setattr(play.copy(name), field, value)

    return break_it


def bind(name: str, **fields: Any) -> Callable[[Play], None]:
    """Return a function that sets fields of a binding."""

    def break_it(play: Play) -> None:
        for field, value in fields.items():
            setattr(play.residency.bindings[id_of(name)], field, value)

    return break_it


def set_account(**fields: Any) -> Callable[[Play], None]:
    """Return a function that sets fields of the account."""

    def break_it(play: Play) -> None:
        for field, value in fields.items():
            setattr(play.residency.account, field, value)

    return break_it


BREAKS: dict[str, Callable[[Play], object]] = {
    "is leased": set_("loading", leases=1),
    "drains without": set_("ready", state=CopyPhase.DRAINING),
    "wait for nothing": set_(
        "loading",
        state=CopyPhase.STUCK,
        failure=copies.LoadFailure(BROKEN, backoff.Backoff(copies.BACKOFF)),
    ),
    "queued without": set_("queued", waiters={}),
    "pinned by a model": set_("ready", pins=frozenset({id_of("stranger")})),
    "serves no model": set_("ready", names=set()),
    "been drained": set_("used", is_unload_requested=True),
    "waiters for a model": set_("loading", waiters={1: id_of("stranger")}),
    "no failure": set_("loading", state=CopyPhase.STUCK, waiters={}),
    "does not know it": bind("fetching", key="ready!"),
    "bound and still": bind("ready", is_fetching=True),
    "no fetch is under way": bind("fetching", is_fetching=False),
    "over the budget": set_account(budget=Footprint(20)),
    "evictable wrongly": set_("ready", is_evictable=False),
    "ranked wrongly": lambda play: play.residency._pool._ready.discard("ready!"),
    "waits for memory": lambda play: setattr(
        play.residency, "limits", copies.WorkerLimits(Footprint(100), loads_parallel=2)
    ),
    "not handed out": lambda play: play.residency._out.append(ev.FreeCopy("k")),
}


@pytest.mark.parametrize("message", BREAKS)
def test_a_broken_invariant_is_noticed_and_named(play: Play, message: str) -> None:
    play.residency.check()
    BREAKS[message](play)
    with pytest.raises(AssertionError, match=message):
        play.residency.check()


SUMS: dict[str, Callable[[Play], object]] = {
    "booked": set_account(booked=Footprint(99)),
    "leaving": set_account(freeing=Footprint(1)),
    "draining": set_account(draining=Footprint(1)),
    "evictable": set_account(_evictable_host_bytes=0),
    "pinned": set_account(pinned=Footprint(1)),
    "queue": lambda play: play.residency.admission.queue.clear(),
    "moving": lambda play: play.residency.admission.in_progress.clear(),
    "parallel": lambda play: setattr(
        play.residency, "limits", copies.WorkerLimits(Footprint(100), loads_parallel=0)
    ),
    "waiters": lambda play: play.residency._waiters._records.clear(),
    "names": lambda play: play.residency.bindings.pop(id_of("ready")),
    "keys": set_("ready", key="other"),
}


@pytest.mark.parametrize("part", SUMS)
def test_sums_that_do_not_add_up_are_noticed(play: Play, part: str) -> None:
    SUMS[part](play)
    with pytest.raises((AssertionError, KeyError)):
        play.residency.check()
