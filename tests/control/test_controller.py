from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from meshserve import errors, tasks
from meshserve.core.processes import reconcile
from meshserve.core.values import desired, events, model, reports
from tests.control import conftest
from tests.core import world


async def register(stage: conftest.Stage, *names: str, **fields: Any) -> Any:
    words = await stage.plane.controller.submit(
        events.ModelsRegistered(tuple(world.spec(name, **fields) for name in names))
    )
    await stage.plane.controller.wait_until_taken()
    return words


async def test_a_configuration_becomes_workers_gateways_and_catalogs(stage: conftest.Stage) -> None:
    assert sorted(stage.cluster.workers) == ["default-0", "default-1", "gpu-0"]
    assert (stage.knowing("conf"), stage.knowing("big"), stage.knowing("al")) == (
        ["default-0", "default-1"],
        ["gpu-0"],
        ["default-0", "default-1"],
    )
    snap = stage.cluster.gateways["n1"]
    assert (snap.controller, dict(snap.routes)) == (conftest.ENDPOINT, {"big": "gpu"})
    await stage.until(
        lambda: all(
            member.ready
            for members in stage.cluster.gateways["n1"].pools.values()
            for member in members
        )
    )


async def test_a_registration_is_durable_and_known_when_it_is_acknowledged(
    stage: conftest.Stage,
) -> None:
    assert await register(stage, "new") == ("model new:1 added",)
    assert "new" in stage.names()
    assert stage.knowing("new") == ["default-0", "default-1"]


async def test_a_registration_that_can_t_be_saved_is_refused(stage: conftest.Stage) -> None:
    stage.store.is_broken = True
    with pytest.raises(errors.Unavailable, match="registry is broken"):
        await register(stage, "new")
    stage.store.is_broken = False
    assert stage.mesh.catalog.models.declared(model.ModelId("new")) is None
    assert await register(stage, "new") == ("model new:1 added",)


async def test_a_refused_request_changes_nothing(stage: conftest.Stage) -> None:
    with pytest.raises(errors.AlreadyExists):
        await register(stage, "conf", uri="/other")
    assert await register(stage, "new") == ("model new:1 added",)


async def test_a_lost_worker_is_replaced_and_knows_all_again(stage: conftest.Stage) -> None:
    await register(stage, "new")
    before = stage.cluster.workers["default-0"].pid
    stage.cluster.kill("default-0")
    await stage.until(lambda: "default-0" in stage.cluster.workers and stage.is_ready())
    assert stage.cluster.workers["default-0"].pid != before
    assert stage.knowing("new") == ["default-0", "default-1"]
    assert stage.mesh.workers.records["default-0"].restarts == 1


async def test_a_worker_that_can_t_be_started_is_tried_again(fresh: conftest.Stage) -> None:
    fresh.cluster.failing_starts["default-0"] = 2
    starting = tasks.spawn(fresh.start(conftest.CONFIG), "start", is_awaited=True)
    for _ in range(20):
        await asyncio.sleep(0.01)
        await fresh.clock.advance(0.5)
    await starting
    assert fresh.cluster.calls.count("start default-0") == 3


async def test_a_worker_that_lost_a_step_gets_everything(stage: conftest.Stage) -> None:
    stage.cluster.lost_steps["default-0"] = 1
    await register(stage, "one")
    await register(stage, "two")
    await stage.until(
        lambda: stage.knowing("one") == ["default-0", "default-1"] == stage.knowing("two")
    )


async def test_a_worker_that_forgot_its_catalog_gets_it_again(stage: conftest.Stage) -> None:
    worker = stage.cluster.workers["default-0"]
    worker.follower = type(worker.follower)()
    await stage.clock.advance(1.1)
    await stage.until(lambda: "default-0" in stage.knowing("conf"))


async def test_a_controller_that_begins_again_restarts_nothing_and_has_lost_nothing(
    stage: conftest.Stage,
) -> None:
    await register(stage, "new", pinned=True)
    await stage.plane.close()
    calls = list(stage.cluster.calls)
    await stage.start(restarts=1)
    assert [
        call
        for call in stage.cluster.calls[len(calls) :]
        if call.startswith(("start d", "start g", "stop"))
    ] == ["start gateway n1"]
    assert stage.declared(model.ModelId("new")).spec.pinned
    assert stage.cluster.gateways["n1"].pools["default"][0].ready


async def test_a_changed_configuration_after_a_restart_withdraws_what_it_no_longer_has(
    stage: conftest.Stage,
) -> None:
    await register(stage, "new")
    await stage.plane.close()
    words = await stage.start({"pools": conftest.CONFIG["pools"]})
    assert set(words) == {"alias al cleared", "model conf:1 withdrawn", "model big:1 withdrawn"}
    assert stage.names() == ["new"]


async def test_a_configuration_that_is_refused_starts_nothing(stage: conftest.Stage) -> None:
    await register(stage, "new")
    await stage.plane.close()
    stage.cluster.workers.clear()
    stage.cluster.calls.clear()
    with pytest.raises(errors.AlreadyExists):
        await stage.start({"models": [{"name": "new", "uri": "/other"}]})
    assert stage.cluster.calls == []


async def test_measurements_are_remembered(stage: conftest.Stage) -> None:
    await register(stage, "new")
    await stage.plane.admin.load("new")
    await stage.clock.advance(1.1)
    await stage.until(lambda: model.ModelId("new") in stage.store.learned)


async def test_what_can_t_be_remembered_holds_nothing_up(stage: conftest.Stage) -> None:
    await register(stage, "new")
    stage.store.is_broken = True
    stage.cluster.workers["default-0"].learned.append(world.measured("new", 5))
    await stage.clock.advance(1.1)
    await stage.until(lambda: stage.declared(model.ModelId("new")).measured)


async def test_a_model_is_loaded_where_its_requests_go(stage: conftest.Stage) -> None:
    assert await stage.plane.admin.load("al") == model.ModelId("conf")
    home = stage.mesh.view().home("al")
    assert f"load conf:1 on {home}" in stage.cluster.calls


async def test_a_load_without_a_worker_has_a_time_to_retry(stage: conftest.Stage) -> None:
    stage.cluster.failing_starts["gpu-0"] = 10
    stage.cluster.kill("gpu-0")
    await stage.until(lambda: stage.mesh.view().home("big") is None)
    with pytest.raises(errors.Unavailable) as caught:
        await stage.plane.admin.load("big")
    assert caught.value.retry_after_s


async def test_every_copy_is_unloaded_unless_it_is_pinned(stage: conftest.Stage) -> None:
    for worker in stage.cluster.workers.values():
        if worker.settings.pool == "default":
            worker.load(model.ModelId("conf"), "")
    await stage.plane.admin.unload("conf")
    assert not any(worker.copies for worker in stage.cluster.workers.values())
    await stage.plane.controller.submit(events.PinRequested(model.ModelId("conf"), is_pinned=True))
    with pytest.raises(errors.Conflict, match="unpin it first"):
        await stage.plane.admin.unload("conf")


async def test_copies_are_as_the_workers_say_now(stage: conftest.Stage) -> None:
    await stage.plane.admin.load("conf")
    home = stage.home("conf")
    assert (await stage.plane.admin.copies(model.ModelId("conf")))[home].state == "ready"
    stage.cluster.kill(home)
    assert await stage.plane.admin.copies(model.ModelId("conf")) == {}


async def test_a_stalled_registry_holds_up_admin_requests_alone(stage: conftest.Stage) -> None:
    stage.store.stall = threading.Event()
    first = tasks.spawn(register(stage, "one"), "register", is_awaited=True)
    second = tasks.spawn(register(stage, "two"), "register", is_awaited=True)
    before = stage.cluster.workers["default-0"].pid
    await stage.until(lambda: "default-0" in stage.cluster.workers)
    stage.cluster.kill("default-0")
    await stage.until(
        lambda: (
            "default-0" in stage.cluster.workers
            and stage.cluster.workers["default-0"].pid != before
            and stage.is_ready()
        ),
        "the lost worker is back",
    )
    assert await stage.plane.admin.load("conf") == model.ModelId("conf")
    assert not first.done()
    assert not second.done()
    stage.store.stall.set()
    assert (await first, await second) == (("model one:1 added",), ("model two:1 added",))
    assert stage.knowing("two") == ["default-0", "default-1"]


async def test_requests_that_wait_are_refused_when_the_controller_ends(
    stage: conftest.Stage,
) -> None:
    stage.store.stall = threading.Event()
    first = tasks.spawn(register(stage, "one"), "register", is_awaited=True)
    second = tasks.spawn(register(stage, "two"), "register", is_awaited=True)
    await asyncio.sleep(0)
    stage.store.stall.set()
    await stage.plane.close()
    outcomes = await asyncio.gather(first, second, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {errors.Unavailable}


async def test_a_read_posts_no_event(stage: conftest.Stage) -> None:
    handled = stage.plane.controller.events_handled
    await stage.plane.admin.describe("conf")
    await stage.plane.admin.stats()
    await asyncio.sleep(0)
    assert stage.plane.controller.events_handled == handled


async def test_a_condition_is_waited_for_without_polling(stage: conftest.Stage) -> None:
    controller = stage.plane.controller
    waiting = tasks.spawn(
        controller.wait_until(lambda view: bool(view.models.versions("new"))),
        "wait until",
        is_awaited=True,
    )
    await asyncio.sleep(0)
    assert not waiting.done()
    await register(stage, "new")
    await asyncio.wait_for(waiting, 1)
    await controller.wait_until(lambda view: bool(view.models.versions("new")))


async def test_a_bug_in_one_event_does_not_end_the_loop(
    stage: conftest.Stage, caplog: pytest.LogCaptureFixture
) -> None:
    broken = reports.WorkerReport("default-0", 1, "n1", "ready", 1, measured=cast("Any", (None,)))
    stage.plane.controller.post(events.WorkerReported(broken, 0))
    assert await register(stage, "new") == ("model new:1 added",)
    assert "WorkerReported could not be handled" in caplog.text
    assert stage.plane.controller.failures == 1


async def test_a_bug_while_changes_are_applied_holds_up_no_later_request(
    stage: conftest.Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(stage.mesh.catalog, "apply_saved", None)
        assert await register(stage, "one") == ("model one:1 added",)
    assert stage.plane.controller.failures == 1
    assert await register(stage, "two") == ("model two:1 added",)


async def test_an_illegal_move_is_logged_with_its_history(
    stage: conftest.Stage, caplog: pytest.LogCaptureFixture
) -> None:
    workers = stage.mesh.workers
    workers.records["default-0"].state = reconcile.ProcessState.ABSENT
    stage.plane.controller.post(events.WorkerLost("default-0", "killed"))
    await stage.until(lambda: stage.plane.controller.failures)
    (record,) = [record for record in caplog.records if "could not be handled" in record.message]
    assert record.levelname == "ERROR"
    assert "IllegalMove" in caplog.text
    assert "moves before: start ordered, serving" in caplog.text


async def test_a_bug_is_an_error_of_its_request(stage: conftest.Stage) -> None:
    with pytest.raises(errors.MeshError, match="the controller failed"):
        await stage.plane.controller.submit(events.ModelsRegistered(cast("Any", (None,))))


async def test_a_new_node_gets_a_gateway(stage: conftest.Stage) -> None:
    stage.cluster.node_names = ("n1", "n2")
    await stage.clock.advance(2.1)
    await stage.until(lambda: set(stage.cluster.gateways) == {"n1", "n2"})


async def test_nodes_that_can_t_be_listed_keep_their_gateways(
    stage: conftest.Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise errors.Unavailable("the cluster does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(stage.cluster, "nodes", fail)
        await stage.clock.advance(4.1)
    assert "the nodes can't be listed" in caplog.text
    assert set(stage.cluster.gateways) == {"n1"}


async def test_everything_ends_in_good_order(stage: conftest.Stage) -> None:
    await stage.plane.drain()
    assert stage.cluster.calls[-4:] == ["stop gateway n1", *sorted(stage.cluster.calls[-3:])]
    assert (stage.cluster.workers, stage.cluster.gateways) == ({}, {})


async def test_settings_that_change_replace_workers_one_after_the_other(
    stage: conftest.Stage,
) -> None:
    wanted = desired.Desired(
        pools=(world.pool(workers=2, queue_max=7), world.pool("gpu", 1, memory=model.Footprint(1)))
    )
    await stage.plane.controller.submit(events.ConfigApplied(wanted))
    await stage.until(
        lambda: (
            stage.is_ready()
            and all(
                worker.settings in [pool.settings for pool in wanted.pools]
                for worker in stage.cluster.workers.values()
            )
        )
    )
    order = [
        call for call in stage.cluster.calls if call.startswith(("stop default", "start default"))
    ][2:]
    assert order == ["stop default-0", "start default-0", "stop default-1", "start default-1"]
