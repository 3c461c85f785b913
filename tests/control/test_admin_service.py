from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.values import events, model
from tests.core import world


@pytest.fixture
def admin(stage):
    return stage.plane.admin


async def test_a_registration_is_known_to_workers_and_gateways(admin, stage):
    await admin.register(
        admin.spec({"name": "new", "uri": "/new", "pool": "gpu"}), is_replacing=False
    )
    assert stage.knowing("new") == ["gpu-0"]
    assert stage.cluster.gateways["n1"].routes["new"] == "gpu"


async def test_a_spec_is_checked_as_the_configuration_is(admin):
    with pytest.raises(errors.ConfigInvalid, match="uri"):
        admin.spec({"name": "new"})


async def test_a_model_is_found_by_name_version_and_alias(admin):
    for key in (("conf",), ("conf", "1"), ("al",)):
        assert admin.declared(*key).spec.id == model.ModelId("conf")
    with pytest.raises(errors.ModelNotFound):
        admin.declared("conf", "2")


async def test_an_alias_and_its_model_may_be_at_home_on_different_workers(admin, stage):
    names = [f"alias{number}" for number in range(8)]
    for name in names:
        await admin.set_alias(events.AliasRequested(world.desired.DesiredAlias(name, "conf")))
        await admin.load(name)
    assert set(await admin.copies(model.ModelId("conf"))) == {
        stage.mesh.home(name) for name in names
    }


async def test_a_model_is_seen_as_it_is_now(admin):
    assert (await admin.describe("conf"))["state"] == "absent"
    await admin.load("conf")
    assert (await admin.describe("conf"))["state"] == "ready"
    await admin.unload("conf")
    assert (await admin.describe("conf"))["state"] == "absent"
