from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.control import admin_service
from meshserve.core.values import desired, events, model
from tests.control import conftest


@pytest.fixture
def admin(stage: conftest.Stage) -> admin_service.AdminService:
    return stage.plane.admin


async def test_a_registration_is_known_to_workers_and_gateways(
    admin: admin_service.AdminService, stage: conftest.Stage
) -> None:
    await admin.register(
        admin.spec({"name": "new", "uri": "/new", "pool": "gpu"}), is_replacing=False
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
