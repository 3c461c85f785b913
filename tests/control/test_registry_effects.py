from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshserve import errors
from meshserve.control import registry_effects, registry_thread
from meshserve.core.interfaces import registry_store
from meshserve.core.values import catalog, commands, events, model, registry_contents
from meshserve.testing import fake_store, manual_clock
from tests import support
from tests.core import world

CHANGES = (catalog.ModelDeclared(world.spec("a")),)
SAVE = commands.SaveChanges(CHANGES)


class Stage:
    def __init__(self) -> None:
        self.store = fake_store.FakeStore()
        self.events: list[Any] = []  # tests know which events come
        self.clock = manual_clock.ManualClock()
        self.thread = registry_thread.RegistryThread(self.store)
        self.registry = registry_effects.RegistryEffects(
            self.thread, self.clock, self.events.append
        )

    async def until(self, count: int) -> list[Any]:
        await support.wait_until_async(lambda: len(self.events) >= count, what=f"{count} events")
        return self.events


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    new_stage = Stage()
    yield new_stage
    await new_stage.registry.close()
    await new_stage.thread.close()


async def test_a_save_is_answered_once_it_is_durable(stage: Stage) -> None:
    stage.registry.perform(SAVE)
    assert await stage.until(1) == [events.ChangesSaved(CHANGES)]
    assert model.ModelId("a") in stage.store.models


async def test_a_save_that_fails_says_why(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.store.is_broken = True
    stage.registry.perform(SAVE)
    (failed,) = await stage.until(1)
    assert failed.error.message == "the registry is broken"
    assert "changes could not be saved" in caplog.text


async def test_a_bug_in_the_registry_is_an_answer_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stage.store, "save", None)
    stage.registry.perform(SAVE)
    (failed,) = await stage.until(1)
    assert "the registry failed: TypeError" in failed.error.message
    assert "Traceback" in caplog.text


async def test_writes_are_performed_in_order_and_outside_of_the_loop(stage: Stage) -> None:
    stage.store.stall = threading.Event()
    stage.registry.perform(commands.RememberMeasured((world.measured("a", 5),)))
    stage.registry.perform(SAVE)
    assert stage.events == []
    stage.store.stall.set()
    await stage.until(1)
    assert list(stage.store.learned) == [model.ModelId("a")]


async def test_what_can_t_be_remembered_holds_nothing_up(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.store.is_broken = True
    stage.registry.perform(commands.RememberMeasured((world.measured("a", 5),)))
    stage.registry.perform(SAVE)
    await stage.until(1)
    assert "what was measured is not kept" in caplog.text


async def test_a_save_whose_outcome_is_unknown_is_settled_before_the_next(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.store.is_unsure = True
    stage.registry.perform(SAVE)
    assert await stage.until(2) == [
        events.SaveStalled("the connection broke"),
        events.ChangesSaved(CHANGES),
    ]
    assert "has not said whether changes are saved" in caplog.text


class Lost(fake_store.FakeStore):
    """Loses the changes of a save whose connection breaks, and is away for two calls after it."""

    tries = 0

    def save(self, changes: Any) -> None:
        if self.is_unsure:
            self.is_unsure = False
            raise registry_store.OutcomeUnknown("the connection broke")
        super().save(changes)

    def settle(self) -> bool:
        self.tries += 1
        if self.tries <= 2:
            raise errors.Unavailable("connection refused")
        return False


def _has_tried(store: Lost, tries: int) -> bool:
    return store.tries == tries


async def test_a_database_is_asked_until_it_tells_the_outcome(stage: Stage) -> None:
    stage.thread.store = store = Lost()
    store.is_unsure = True
    stage.registry.perform(SAVE)
    stage.registry.perform(SAVE)
    await stage.until(1)
    for tries in (1, 2):
        await support.wait_until_async(functools.partial(_has_tried, store, tries))
        await stage.thread.settled()
        await stage.clock.advance(registry_effects.AGAIN_S)
    stalled, failed, saved = await stage.until(3)
    assert isinstance(stalled, events.SaveStalled)
    assert failed.error.message == "the connection broke"
    assert saved == events.ChangesSaved(CHANGES)


async def test_a_fenced_controller_saves_nothing(stage: Stage) -> None:
    stage.store.lease = registry_contents.WriteLease("x", "the new mesh", 1)
    stage.registry.perform(SAVE)
    (failed,) = await stage.until(1)
    assert "the new mesh" in failed.error.message
    assert stage.thread.lost.done()
    assert stage.store.models == {}
