"""What each admin request changes, or the class of the error that refuses it."""

from __future__ import annotations

import dataclasses

import pytest

from meshserve import errors
from meshserve.core.values import desired, events, llm_spec, model
from tests.core import world
from tests.core.catalog import conftest


def scanned(*specs: model.ModelSpec) -> events.RepositoryScanned:
    return events.RepositoryScanned(
        conftest.REPOSITORY.origin,
        tuple(dataclasses.replace(spec, origin=conftest.REPOSITORY.origin) for spec in specs),
    )


# The configuration


def test_the_same_configuration_changes_nothing(mesh_world: world.World) -> None:
    assert mesh_world.feed(events.ConfigApplied(mesh_world.mesh.catalog.desired)) == ()


def test_only_what_differs_is_touched(mesh_world: world.World) -> None:
    words = mesh_world.apply(
        pools=conftest.POOLS,
        models=conftest.configured("conf", "more"),
        aliases=(),
        repositories=(conftest.REPOSITORY,),
    )
    assert words == ("alias al cleared", "model more:1 added")


def test_what_others_registered_outlives_a_configuration(mesh_world: world.World) -> None:
    mesh_world.apply(pools=conftest.POOLS)
    assert sorted(mesh_world.saved_models) == [model.ModelId("api")]


def test_a_pin_at_run_time_outlives_a_configuration_that_says_the_same(
    mesh_world: world.World,
) -> None:
    mesh_world.feed(events.PinRequested(model.ModelId("conf"), is_pinned=True))
    mesh_world.apply(pools=conftest.POOLS, models=conftest.configured("conf", "more"))
    assert mesh_world.saved_models[model.ModelId("conf")].pinned


def test_a_configuration_against_a_registered_model_changes_nothing_at_all(
    mesh_world: world.World,
) -> None:
    wanted = desired.Desired(
        pools=conftest.POOLS,
        models=(*conftest.configured("new"), *conftest.configured("api", uri="/other")),
    )
    assert mesh_world.refused(events.ConfigApplied(wanted)) == "AlreadyExists"
    assert model.ModelId("new") not in mesh_world.saved_models


def test_a_configuration_against_a_set_alias_is_refused(mesh_world: world.World) -> None:
    mesh_world.feed(conftest.alias("mine", "api"))
    wanted = desired.Desired(
        pools=conftest.POOLS,
        models=conftest.configured("conf"),
        aliases=(desired.DesiredAlias("mine", "conf", origin=model.FROM_CONFIG),),
    )
    assert mesh_world.refused(events.ConfigApplied(wanted)) == "AlreadyExists"


def test_a_pool_with_registered_models_is_not_removed(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("big", pool="gpu"),)))
    assert (
        mesh_world.refused(events.ConfigApplied(desired.Desired(pools=conftest.POOLS[:1])))
        == "Conflict"
    )
    assert mesh_world.refused(events.ConfigApplied(desired.Desired(pools=conftest.POOLS))) == ""


def test_a_repository_that_is_not_configured_any_more_is_not_served(
    mesh_world: world.World,
) -> None:
    mesh_world.feed(scanned(world.spec("r")))
    assert "model r:1 withdrawn" in mesh_world.apply(
        pools=conftest.POOLS, models=conftest.configured("conf")
    )


def test_a_name_taken_over_from_a_repository_comes_back_to_it(mesh_world: world.World) -> None:
    mesh_world.feed(scanned(world.spec("r")))
    mesh_world.apply(
        pools=conftest.POOLS,
        models=conftest.configured("r", uri="/other"),
        repositories=(conftest.REPOSITORY,),
    )
    assert mesh_world.saved_models[model.ModelId("r")].origin == model.FROM_CONFIG
    mesh_world.apply(pools=conftest.POOLS, repositories=(conftest.REPOSITORY,))
    assert mesh_world.saved_models[model.ModelId("r")].origin == conftest.REPOSITORY.origin


# Models


def test_a_registration_is_all_or_nothing(mesh_world: world.World) -> None:
    assert (
        mesh_world.refused(
            events.ModelsRegistered((world.spec("new"), world.spec("conf", uri="/other")))
        )
        == "AlreadyExists"
    )
    assert model.ModelId("new") not in mesh_world.saved_models


def test_the_same_registration_twice_is_one(mesh_world: world.World) -> None:
    assert mesh_world.feed(events.ModelsRegistered((world.spec("api"),))) == ()


def test_what_the_store_does_not_keep_does_not_hold(mesh_world: world.World) -> None:
    with pytest.raises(errors.Unavailable):
        mesh_world.feed(events.ModelsRegistered((world.spec("new"),)), is_store_broken=True)
    assert mesh_world.mesh.catalog.models.declared(model.ModelId("new")) is None


@pytest.mark.parametrize(
    ("name", "version", "refusal"),
    [("none", "", "ModelNotFound"), ("api", "9", "ModelNotFound"), ("conf", "", "Conflict")],
)
def test_a_removal_that_is_refused(
    mesh_world: world.World, name: str, version: str, refusal: str
) -> None:
    assert mesh_world.refused(events.ModelRemoved(name, version)) == refusal


def test_one_version_is_removed_alone(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("api", "2"),)))
    assert mesh_world.feed(events.ModelRemoved("api", "1")) == ("model api:1 withdrawn",)
    assert mesh_world.feed(events.ModelRemoved("api")) == ("model api:2 withdrawn",)


def test_a_model_that_an_alias_means_stays(mesh_world: world.World) -> None:
    mesh_world.feed(conftest.alias("mine", "api"))
    assert mesh_world.refused(events.ModelRemoved("api")) == "Conflict"
    mesh_world.feed(events.AliasRemovalRequested("mine"))
    assert mesh_world.refused(events.ModelRemoved("api")) == ""


# Repositories


def test_a_scan_is_what_the_repository_holds(mesh_world: world.World) -> None:
    assert mesh_world.feed(scanned(world.spec("r"), world.spec("s"))) == (
        "model r:1 added",
        "model s:1 added",
    )
    assert mesh_world.feed(scanned(world.spec("r", uri="/new"))) == (
        "model s:1 withdrawn",
        "model r:1 changed (uri)",
    )
    assert mesh_world.feed(scanned(world.spec("r", uri="/new"))) == ()


def test_a_scan_leaves_others_names_alone_and_says_so(mesh_world: world.World) -> None:
    words = mesh_world.feed(scanned(world.spec("conf"), world.spec("al"), world.spec("r")))
    assert words == (
        "model r:1 added",
        "model 'conf:1' of repository /repo is not served: the name belongs to the configuration",
        "model 'al:1' of repository /repo is not served: the name is an alias",
    )


def test_a_scan_leaves_the_names_of_llms_alone() -> None:
    mesh_world = world.World()
    mesh_world.apply(
        pools=conftest.POOLS,
        repositories=(conftest.REPOSITORY,),
        llms=(llm_spec.LlmSpec("chat", "/chat"),),
    )
    assert mesh_world.feed(scanned(world.spec("chat"))) == (
        "model 'chat:1' of repository /repo is not served: the name is an LLM's",
    )


def test_a_scan_keeps_pins(mesh_world: world.World) -> None:
    mesh_world.feed(scanned(world.spec("r")))
    mesh_world.feed(events.PinRequested(model.ModelId("r"), is_pinned=True))
    mesh_world.feed(scanned(world.spec("r", uri="/new")))
    assert mesh_world.saved_models[model.ModelId("r")].pinned


def test_a_model_stays_unloaded_until_it_is_loaded(mesh_world: world.World) -> None:
    specs = (world.spec("r"), world.spec("r", "2"))
    mesh_world.feed(scanned(*specs))
    mesh_world.feed(events.UnloadedSet("r", unloaded=True))
    mesh_world.feed(scanned(*specs, world.spec("s")))
    unloaded = {id_ for id_, spec in mesh_world.saved_models.items() if spec.unloaded}
    assert unloaded == {spec.id for spec in specs}
    with pytest.raises(errors.Conflict, match="is unloaded: load it first"):
        mesh_world.feed(events.PinRequested(model.ModelId("r"), is_pinned=True))
    mesh_world.feed(events.UnloadedSet("r", unloaded=False))
    assert not any(spec.unloaded for spec in mesh_world.saved_models.values())


def test_a_pinned_or_unknown_model_is_not_unloaded(mesh_world: world.World) -> None:
    mesh_world.feed(scanned(world.spec("r")))
    mesh_world.feed(events.PinRequested(model.ModelId("r"), is_pinned=True))
    with pytest.raises(errors.Conflict, match="unpin it first"):
        mesh_world.feed(events.UnloadedSet("r", unloaded=True))
    with pytest.raises(errors.ModelNotFound):
        mesh_world.feed(events.UnloadedSet("nowhere", unloaded=True))


def test_a_scan_of_a_repository_that_is_not_configured_changes_nothing(
    mesh_world: world.World,
) -> None:
    assert (
        mesh_world.feed(
            events.RepositoryScanned(model.Origin.parse("repository:/other"), (world.spec("r"),))
        )
        == ()
    )
