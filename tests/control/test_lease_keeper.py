from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import pytest

from meshserve import errors, tasks
from meshserve.control import lease_keeper, registry_thread
from meshserve.core.catalog import lease_watch
from meshserve.core.values import registry_contents
from meshserve.testing import fake_store, manual_clock
from tests import support

MINE = lease_keeper.LeaseClaim("mine", "this mesh")
PATIENT = dataclasses.replace(MINE, is_patient=True)
OTHER = registry_contents.WriteLease("other", "the other mesh", 3, 10)


class Stage:
    def __init__(self) -> None:
        self.store = fake_store.FakeStore()
        self.clock = manual_clock.ManualClock()
        self.thread = registry_thread.RegistryThread(self.store)
        self.keeper = lease_keeper.LeaseKeeper(self.thread, self.clock)

    def beat(self) -> None:
        self.store.lease = dataclasses.replace(self.store.lease, beats=self.store.lease.beats + 1)

    async def advance(self, seconds: float) -> None:
        """Let time pass in small steps; calls of the registry run between them."""
        for _ in range(int(seconds / 0.1)):
            await self.clock.advance(0.1)
            await self.thread.settled()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    new_stage = Stage()
    yield new_stage
    await new_stage.keeper.release()
    await new_stage.thread.close()


async def test_a_free_registry_is_taken_at_once_and_kept(stage: Stage) -> None:
    contents = await stage.keeper.begin(MINE)
    assert contents.mesh_id == "fake"
    lease = stage.store.lease
    assert (lease.holder, lease.about, lease.epoch) == ("mine", "this mesh", 1)
    await stage.advance(5 * lease_watch.BEAT_S)
    assert stage.store.lease.beats >= lease.beats + 3
    await stage.keeper.release()
    assert stage.store.lease.holder == ""
    await stage.keeper.release()


async def test_the_next_controller_of_the_same_mesh_takes_it_at_once(stage: Stage) -> None:
    stage.store.lease = registry_contents.WriteLease("mine", "this mesh", 3, 10)
    await stage.keeper.begin(MINE)
    assert stage.store.lease.epoch == 4


async def test_a_second_mesh_is_refused_as_soon_as_the_first_gives_a_sign(stage: Stage) -> None:
    stage.store.lease = OTHER
    begun = tasks.spawn(stage.keeper.begin(MINE), "begin", is_awaited=True)
    await stage.advance(1.0)
    assert not begun.done()
    stage.beat()
    await stage.advance(1.0)
    with pytest.raises(errors.Unavailable, match="the other mesh writes this registry"):
        await begun
    assert stage.store.lease.holder == "other"


async def test_a_dead_mesh_keeps_the_registry_for_seconds_only(stage: Stage) -> None:
    stage.store.lease = OTHER
    begun = tasks.spawn(stage.keeper.begin(MINE), "begin", is_awaited=True)
    await stage.advance(lease_watch.SILENCE_S - 1.0)
    assert not begun.done()
    await stage.advance(2.0)
    await begun
    assert (stage.store.lease.holder, stage.store.lease.epoch) == ("mine", 4)


async def test_a_controller_that_was_started_again_waits_until_the_other_has_left(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.store.lease = OTHER
    begun = tasks.spawn(stage.keeper.begin(PATIENT), "begin", is_awaited=True)
    for _ in range(20):
        await stage.advance(1.0)
        stage.beat()
    assert not begun.done()
    assert stage.keeper.is_known.is_set()
    assert "the other mesh writes this registry" in stage.keeper.waits_for
    assert caplog.text.count("waits for its registry") == 1
    stage.store.lease = dataclasses.replace(stage.store.lease, holder="")
    await stage.advance(1.0)
    await begun
    assert stage.keeper.waits_for == ""


async def test_a_registry_is_taken_from_a_living_mesh_where_that_is_wanted(stage: Stage) -> None:
    stage.store.lease = OTHER
    await stage.keeper.begin(dataclasses.replace(MINE, is_taking_over=True))
    assert (stage.store.lease.holder, stage.store.lease.epoch) == ("mine", 4)


class Away(fake_store.FakeStore):
    """A database that does not answer at first."""

    def read_lease(self) -> registry_contents.WriteLease:
        if self.is_broken:
            raise errors.ConfigInvalid("registry: connection refused")
        return super().read_lease()


async def test_only_a_controller_that_was_started_again_waits_for_the_database(
    stage: Stage,
) -> None:
    store = Away()
    store.is_broken = True
    keeper = lease_keeper.LeaseKeeper(registry_thread.RegistryThread(store), stage.clock)
    with pytest.raises(errors.ConfigInvalid, match="connection refused"):
        await keeper.begin(MINE)
    begun = tasks.spawn(keeper.begin(PATIENT), "begin", is_awaited=True)
    await support.wait_until_async(keeper.is_known.is_set)
    store.is_broken = False
    await stage.clock.advance(lease_keeper.LOOK_S)
    await begun
    await keeper.release()
    await keeper._thread.close()


async def test_a_sign_of_life_that_fails_is_tried_again(stage: Stage) -> None:
    await stage.keeper.begin(MINE)
    stage.store.is_broken = True
    await stage.advance(2.0)
    assert stage.keeper.waits_for == "the registry is broken"
    stage.store.is_broken = False
    await stage.advance(2.0)
    assert stage.keeper.waits_for == ""
    stage.store.lease = dataclasses.replace(OTHER, epoch=9)
    await stage.advance(2.0)
    assert stage.thread.lost.done()
