from __future__ import annotations

import pytest

from meshserve.core.catalog import catalog_index
from meshserve.core.values import catalog, desired, model
from tests.core import world

ALIAS = desired.DesiredAlias("al", "a")


@pytest.fixture
def index():
    made = catalog_index.CatalogIndex()
    yield made
    made.check()


def told(made):
    return [(each.pool, type(each.change).__name__) for each in made]


def test_a_model_is_told_to_its_pool_alone(index):
    assert told(index.apply(catalog.ModelDeclared(world.spec("a", pool="gpu")))) == [
        ("gpu", "ModelDeclared")
    ]
    assert (len(index.share("gpu")), len(index.share("default"))) == (1, 0)


def test_a_pools_whole_share_is_cut_once_until_it_changes(index):
    index.apply(catalog.ModelDeclared(world.spec("a")))
    before = index.parts("default")
    index.apply(catalog.ModelDeclared(world.spec("b", pool="gpu")))
    assert index.parts("default") is before
    index.apply(catalog.ModelWithdrawn(model.ModelId("a")))
    assert (len(before[0]), index.parts("default")) == (1, ())


def test_a_model_that_moves_leaves_its_old_pool_with_its_aliases(index):
    index.apply(catalog.ModelDeclared(world.spec("a")))
    index.apply(ALIAS)
    moved = index.apply(catalog.ModelDeclared(world.spec("a", pool="gpu")))
    assert told(moved) == [
        ("default", "ModelWithdrawn"),
        ("gpu", "ModelDeclared"),
        ("default", "AliasCleared"),
        ("gpu", "AliasSet"),
    ]


def test_routes_name_what_is_outside_the_default_pool(index):
    index.apply(catalog.ModelDeclared(world.spec("a", pool="gpu")))
    index.apply(ALIAS)
    index.apply(catalog.ModelDeclared(world.spec("b")))
    assert index.routes == {"a": "gpu", "al": "gpu"}
    index.apply(catalog.ModelWithdrawn(model.ModelId("a")))
    assert index.routes == {}


def test_an_alias_of_a_model_that_is_not_there_is_told_to_nobody_until_it_comes(index):
    assert told(index.apply(ALIAS)) == []
    assert told(index.apply(catalog.ModelDeclared(world.spec("a")))) == [
        ("default", "ModelDeclared"),
        ("default", "AliasSet"),
    ]
    assert told(index.apply(catalog.ModelWithdrawn(model.ModelId("a")))) == [
        ("default", "ModelWithdrawn"),
        ("default", "AliasCleared"),
    ]
    assert index.aliases == {"al": ALIAS}


def test_an_alias_that_changes_its_meaning_changes_its_pool(index):
    index.apply(catalog.ModelDeclared(world.spec("a")))
    index.apply(catalog.ModelDeclared(world.spec("g", pool="gpu")))
    index.apply(ALIAS)
    assert told(index.apply(desired.DesiredAlias("al", "g"))) == [
        ("default", "AliasCleared"),
        ("gpu", "AliasSet"),
    ]
    assert (index.aliases_of("a"), index.aliases_of("g"), index.pool_of("al")) == (
        set(),
        {"al"},
        "gpu",
    )
    assert told(index.apply(catalog.AliasCleared("al"))) == [("gpu", "AliasCleared")]


def test_a_model_is_needed_by_aliases_that_mean_it_and_that_will(index):
    index.apply(catalog.ModelDeclared(world.spec("a")))
    index.apply(desired.DesiredAlias("moving", "a", target="b"))
    assert (
        [alias.alias for alias in index.needing("a")]
        == ["moving"]
        == [alias.alias for alias in index.needing("b")]
    )
    index.apply(desired.DesiredAlias("moving", "b"))
    assert index.moving() == ()


def test_what_an_origin_declared_is_known(index):
    index.apply(catalog.ModelDeclared(world.spec("a", origin=model.FROM_CONFIG)))
    assert index.of_origin(model.FROM_CONFIG) == {model.ModelId("a")}
    index.apply(catalog.ModelDeclared(world.spec("a", origin=model.FROM_API)))
    assert index.of_origin(model.FROM_CONFIG) == set()


def test_withdrawing_what_is_not_there_changes_nothing(index):
    assert (
        index.apply(catalog.ModelWithdrawn(model.ModelId("a")))
        == ()
        == index.apply(catalog.AliasCleared("al"))
    )


def test_changes_bear_on_the_models_that_aliases_meant_before_and_mean_after(index):
    index.apply(ALIAS)
    touched = index.affected_names(
        (
            desired.DesiredAlias("al", "b"),
            catalog.ModelDeclared(world.spec("c")),
            catalog.ModelWithdrawn(model.ModelId("d")),
        )
    )
    assert touched == {"a": [], "b": [], "c": [model.ModelId("c")], "d": []}


def test_routes_are_asked_for_by_name_with_aliases(index):
    index.apply(catalog.ModelDeclared(world.spec("a", pool="gpu")))
    index.apply(ALIAS)
    assert index.routes_of(["a"]) == {"a": "gpu", "al": "gpu"}
