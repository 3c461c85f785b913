"""How long an override lasts, and what it leaves behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from meshserve.core.values import desired, events, model
from tests.core import world

REPOSITORY = desired.RepositorySettings("/repo")
POOLS = (world.pool(workers=1),)
CONFIGURED = (world.spec("conf", origin=model.FROM_CONFIG),)


def scanned(*specs: model.ModelSpec) -> events.RepositoryScanned:
    return events.RepositoryScanned(
        REPOSITORY.origin,
        tuple(dataclasses.replace(spec, origin=REPOSITORY.origin) for spec in specs),
    )


@pytest.fixture
def mesh_world() -> Iterator[world.World]:
    fresh = world.World()
    fresh.apply(pools=POOLS, models=CONFIGURED, repositories=(REPOSITORY,))
    fresh.feed(events.ModelsRegistered((world.spec("api"),)))
    fresh.feed(scanned(world.spec("repo", "2"), world.spec("repo", "3")))
    yield fresh
    fresh.check()


def uris(mesh_world: world.World, name: str) -> dict[str, str]:
    return {
        id_.version: declared.uri
        for id_, declared in sorted(mesh_world.saved_models.items())
        if id_.name == name
    }


def override(mesh_world: world.World, name: str, version: str = "7") -> None:
    mesh_world.feed(events.ModelOverridden(name, (world.spec(name, version, uri="/sent"),)))
    assert uris(mesh_world, name) == {version: "/sent"}


@pytest.mark.parametrize("name", ["conf", "api", "repo"])
def test_an_override_ends_with_what_was_there(mesh_world: world.World, name: str) -> None:
    before = dict(mesh_world.saved_models)
    override(mesh_world, name)
    override(mesh_world, name, "8")
    mesh_world.feed(events.ModelOverridden(name))
    assert mesh_world.saved_models == before
    assert mesh_world.feed(events.ModelOverridden(name)) == ()


@pytest.mark.parametrize("name", ["conf", "api", "repo"])
def test_an_overridden_model_keeps_its_owner(mesh_world: world.World, name: str) -> None:
    owner = mesh_world.mesh.view().declared(name).spec.origin
    override(mesh_world, name)
    assert mesh_world.saved_models[model.ModelId(name, "7")].origin == owner


def test_the_same_declarations_leave_an_override(mesh_world: world.World) -> None:
    for name in ("conf", "api", "repo"):
        override(mesh_world, name)
    mesh_world.feed(events.ConfigApplied(mesh_world.mesh.catalog.desired))
    mesh_world.feed(events.ModelsRegistered((world.spec("api"),), is_replacing=False))
    mesh_world.feed(scanned(world.spec("repo", "2"), world.spec("repo", "3"), world.spec("other")))
    for name in ("conf", "api", "repo"):
        assert uris(mesh_world, name) == {"7": "/sent"}


def test_a_changed_folder_ends_an_override(mesh_world: world.World) -> None:
    override(mesh_world, "repo")
    mesh_world.feed(scanned(world.spec("repo", "3", uri="/newer")))
    assert uris(mesh_world, "repo") == {"3": "/newer"}


def test_a_removed_folder_takes_the_override_along(mesh_world: world.World) -> None:
    override(mesh_world, "repo")
    mesh_world.feed(scanned())
    assert uris(mesh_world, "repo") == {}


@pytest.mark.parametrize("version", ["1", "7"])
def test_a_changed_configuration_ends_an_override(mesh_world: world.World, version: str) -> None:
    override(mesh_world, "conf", version)
    changed = world.spec("conf", origin=model.FROM_CONFIG, uri="/changed")
    mesh_world.apply(pools=POOLS, models=(changed,), repositories=(REPOSITORY,))
    assert uris(mesh_world, "conf") == {"1": "/changed"}
    override(mesh_world, "conf", version)
    mesh_world.apply(pools=POOLS, repositories=(REPOSITORY,))
    assert uris(mesh_world, "conf") == {}


def test_a_registration_ends_an_override(mesh_world: world.World) -> None:
    override(mesh_world, "api")
    mesh_world.feed(events.ModelsRegistered((world.spec("api", uri="/put"),), is_replacing=True))
    assert uris(mesh_world, "api") == {"1": "/put"}
    override(mesh_world, "api")
    mesh_world.feed(events.ModelRemoved("api"))
    assert uris(mesh_world, "api") == {}


def test_a_pin_and_an_unload_outlast_an_override(mesh_world: world.World) -> None:
    mesh_world.feed(events.UnloadedSet("conf", unloaded=True))
    mesh_world.feed(events.PinRequested(model.ModelId("api"), is_pinned=True))
    override(mesh_world, "conf")
    override(mesh_world, "api", "1")
    assert mesh_world.saved_models[model.ModelId("conf", "7")].unloaded
    assert mesh_world.saved_models[model.ModelId("api")].pinned
    mesh_world.feed(events.ModelOverridden("api"))
    assert mesh_world.saved_models[model.ModelId("api")].pinned


def test_an_override_of_an_unknown_name_registers_it(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelOverridden("new", (world.spec("new", "4"),)))
    assert uris(mesh_world, "new") == {"4": "/models/new/4"}
    assert mesh_world.saved_models[model.ModelId("new", "4")].replaced == ()
    assert mesh_world.refused(events.ModelOverridden("none")) == "ModelNotFound"


def test_a_restarted_controller_keeps_an_override(mesh_world: world.World) -> None:
    override(mesh_world, "repo")
    saved = mesh_world.saved_models[model.ModelId("repo", "7")]
    assert [spec.id.version for spec in saved.replaced] == ["2", "3"]
