from __future__ import annotations

import dataclasses

from meshserve.core.catalog import repository_changes
from meshserve.core.values import desired, events, llm_spec, model
from tests.core import world

REPOSITORY = desired.RepositorySettings("/repo")


def scanned(*specs: model.ModelSpec) -> events.RepositoryScanned:
    return events.RepositoryScanned(
        REPOSITORY.origin,
        tuple(dataclasses.replace(spec, origin=REPOSITORY.origin) for spec in specs),
    )


def test_a_name_of_another_owner_is_told_and_left_out() -> None:
    mesh_world = world.World()
    taken = (world.spec("conf", origin=model.FROM_CONFIG),)
    mesh_world.apply(pools=(world.pool(),), models=taken, repositories=(REPOSITORY,))
    words = mesh_world.feed(scanned(world.spec("conf"), world.spec("conf", "2"), world.spec("new")))
    lines = [line for line in words if repository_changes.NOT_SERVED in line]
    assert [line.split("'")[1] for line in lines] == ["conf:1", "conf:2"]
    assert sorted(map(str, mesh_world.saved_models)) == ["conf:1", "new:1"]


def test_a_version_that_comes_to_an_unloaded_model_is_unloaded_too() -> None:
    mesh_world = world.World()
    mesh_world.apply(pools=(world.pool(),), repositories=(REPOSITORY,))
    mesh_world.feed(scanned(world.spec("one")))
    mesh_world.feed(events.UnloadedSet("one", unloaded=True))
    mesh_world.feed(scanned(world.spec("one"), world.spec("one", "2")))
    assert all(spec.unloaded for spec in mesh_world.saved_models.values())
    mesh_world.feed(events.UnloadedSet("one", unloaded=False))
    assert not any(spec.unloaded for spec in mesh_world.saved_models.values())


def test_a_configuration_may_give_a_served_name_to_an_llm_or_an_alias() -> None:
    mesh_world = world.World()
    mesh_world.apply(pools=(world.pool(),), repositories=(REPOSITORY,))
    mesh_world.feed(scanned(world.spec("chat"), world.spec("one")))
    conf = world.spec("conf", origin=model.FROM_CONFIG)
    mesh_world.apply(
        pools=(world.pool(),),
        models=(conf,),
        aliases=(desired.DesiredAlias("one", "conf", origin=model.FROM_CONFIG),),
        llms=(llm_spec.LlmSpec("chat", "/chat"),),
        repositories=(REPOSITORY,),
    )
    assert sorted(map(str, mesh_world.saved_models)) == ["conf:1"]
    mesh_world.apply(pools=(world.pool(),), repositories=(REPOSITORY,))
    assert sorted(map(str, mesh_world.saved_models)) == ["chat:1", "one:1"]


def test_a_pool_that_a_repository_uses_is_renamed_in_one_go() -> None:
    mesh_world = world.World()
    old = dataclasses.replace(REPOSITORY, pool="small")
    mesh_world.apply(pools=(world.pool(), world.pool("small")), repositories=(old,))
    mesh_world.feed(scanned(world.spec("one", pool="small")))
    new = dataclasses.replace(REPOSITORY, pool="tiny")
    mesh_world.apply(pools=(world.pool(), world.pool("tiny")), repositories=(new,))
    assert [spec.pool for spec in mesh_world.saved_models.values()] == ["tiny"]
