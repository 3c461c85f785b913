from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.values import events, model
from tests.core import world


@pytest.fixture
def clerk(stage):
    return stage.plane._clerk


async def test_what_is_registered_is_known_to_workers_and_gateways_at_once(clerk, stage):
    await clerk.register(
        clerk.spec({"name": "new", "uri": "/new", "pool": "gpu"}), is_replacing=False
    )
    assert stage.knowing("new") == ["gpu-0"]
    assert stage.cluster.gateways["n1"].routes["new"] == "gpu"


async def test_a_spec_is_checked_as_the_configuration_is(clerk):
    with pytest.raises(errors.ConfigInvalid, match="uri"):
        clerk.spec({"name": "new"})


async def test_a_model_is_found_by_name_version_and_alias(clerk):
    for asked in (("conf",), ("conf", "1"), ("al",)):
        assert clerk.declared(*asked).spec.id == model.ModelId("conf")
    with pytest.raises(errors.ModelNotFound):
        clerk.declared("conf", "2")


async def test_an_alias_and_its_model_may_be_at_home_on_different_workers(clerk, stage):
    names = [f"alias{number}" for number in range(8)]
    for name in names:
        await clerk.set_alias(events.AliasRequested(world.desired.DesiredAlias(name, "conf")))
        await clerk.load(name)
    assert set(await clerk.copies(model.ModelId("conf"))) == {
        stage.mesh.home(name) for name in names
    }


async def test_a_model_is_seen_as_it_is_now(clerk):
    assert (await clerk.view("conf"))["state"] == "absent"
    await clerk.load("conf")
    assert (await clerk.view("conf"))["state"] == "ready"
    await clerk.unload("conf")
    assert (await clerk.view("conf"))["state"] == "absent"
