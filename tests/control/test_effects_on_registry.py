from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshserve.control import effects
from meshserve.core.values import catalog, commands, events, model
from meshserve.testing import fake_store
from tests import support
from tests.core import world

CHANGES = (catalog.ModelDeclared(world.spec("a")),)
SAVE = commands.SaveChanges(CHANGES)


class Stage:
    def __init__(self) -> None:
        self.store = fake_store.FakeStore()
        self.events: list[Any] = []  # tests know which events come
        self.registry = effects.RegistryEffects(self.store, self.events.append)

    async def until(self, count: int) -> list[Any]:
        await support.wait_until_async(lambda: len(self.events) >= count, what=f"{count} events")
        return self.events


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    new_stage = Stage()
    yield new_stage
    await new_stage.registry.close()


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
