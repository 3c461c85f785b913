from __future__ import annotations

import asyncio

import pytest

from meshserve import errors
from meshserve.control import admin_service, controller
from meshserve.core.values import catalog_sync, desired, events, model
from tests.control import conftest


@pytest.fixture
def admin(stage: conftest.Stage) -> admin_service.AdminService:
    return stage.plane.admin


async def test_a_registration_is_known_to_workers_and_gateways(
    admin: admin_service.AdminService, stage: conftest.Stage
) -> None:
    await admin.register(
        admin.spec({"name": "new", "uri": "s3://new/one", "pool": "gpu"}), is_replacing=False
    )
    assert stage.knowing("new") == ["gpu-0"]
    assert stage.cluster.gateways["n1"].routes["new"] == "gpu"


async def test_a_spec_is_checked_as_the_configuration_is(admin: admin_service.AdminService) -> None:
    with pytest.raises(errors.ConfigInvalid, match="uri"):
        admin.spec({"name": "new"})


async def test_a_model_is_found_by_name_version_and_alias(
    admin: admin_service.AdminService,
) -> None:
    for key in (("conf",), ("conf", "1"), ("al",)):
        assert admin.declared(*key).spec.id == model.ModelId("conf")
    with pytest.raises(errors.ModelNotFound):
        admin.declared("conf", "2")


async def test_an_alias_and_its_model_may_be_at_home_on_different_workers(
    admin: admin_service.AdminService, stage: conftest.Stage
) -> None:
    names = [f"alias{number}" for number in range(8)]
    for name in names:
        await admin.set_alias(events.AliasRequested(desired.DesiredAlias(name, "conf")))
        await admin.load(name)
    assert set(await admin.copies(model.ModelId("conf"))) == {
        stage.mesh.view().home(name) for name in names
    }


async def test_a_model_is_seen_as_it_is_now(admin: admin_service.AdminService) -> None:
    assert (await admin.describe("conf"))["state"] == "absent"
    await admin.load("conf")
    assert (await admin.describe("conf"))["state"] == "ready"
    await admin.unload("conf")
    assert (await admin.describe("conf"))["state"] == "absent"


def hold_changes(stage: conftest.Stage, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Keep all changes from the first worker; return what lets it take them."""
    may_take = asyncio.Event()
    send = stage.cluster.send_changes

    async def send_slowly(worker_id: str, step: catalog_sync.SyncStep) -> None:
        if worker_id == "default-0":
            await may_take.wait()
        await send(worker_id, step)

    monkeypatch.setattr(stage.cluster, "send_changes", send_slowly)
    monkeypatch.setattr(controller, "TAKEN_TIMEOUT_S", 0.05)
    return may_take


async def test_a_change_that_a_worker_does_not_take_is_no_success(
    stage: conftest.Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_take = hold_changes(stage, monkeypatch)
    async with stage.client() as http:
        # Asking again does not make it true.
        for _ in range(2):
            late = await http.put("/mesh/v1/models/new", json={"uri": "/new"})
            assert late.status_code == 504
            assert "saved, but worker default-0 did not take it" in late.json()["error"]
        assert "new" in stage.names()
        may_take.set()
        await stage.until(lambda: len(stage.knowing("new")) == 2)
        assert (await http.put("/mesh/v1/models/new", json={"uri": "/new"})).status_code == 200


async def test_a_removal_is_not_told_as_not_found_before_all_workers_have_taken_it(
    stage: conftest.Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.plane.admin.register(
        stage.plane.admin.spec({"name": "new", "uri": "/new"}), is_replacing=False
    )
    may_take = hold_changes(stage, monkeypatch)
    async with stage.client() as http:
        for _ in range(2):
            assert (await http.delete("/mesh/v1/models/new")).status_code == 504
        assert stage.knowing("new") == ["default-0"]
        may_take.set()
        await stage.until(lambda: not stage.knowing("new"))
        assert (await http.delete("/mesh/v1/models/new")).status_code == 404


async def test_a_configuration_that_comes_late_is_followed_all_the_same(
    stage: conftest.Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(stage.cluster, "send_changes", never)
    monkeypatch.setattr(controller, "TAKEN_TIMEOUT_S", 0.05)
    config = {**conftest.CONFIG, "repositories": [{"path": "/r"}]}
    config["models"] = [*conftest.CONFIG["models"], {"name": "more", "uri": "/more"}]
    async with stage.client() as http:
        assert (await http.post("/mesh/v1/apply", json=config)).status_code == 504
    assert stage.plane.status()["repositories"][0]["place"] == "/r"
    await stage.until(lambda: "/r" in stage.watch.known)
