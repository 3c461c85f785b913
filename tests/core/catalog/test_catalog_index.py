from __future__ import annotations

import pytest

from meshserve.core.catalog import catalog_index
from meshserve.core.values import catalog, desired, model
from tests.core import world

ALIAS = desired.DesiredAlias("al", "a")


@pytest.fixture
def book():
    made = catalog_index.CatalogIndex()
    yield made
    made.check()


def told(made):
    return [(each.pool, type(each.change).__name__) for each in made]


def test_a_model_is_told_to_its_pool_alone(book):
    assert told(book.make(catalog.ModelDeclared(world.spec("a", pool="gpu")))) == [
        ("gpu", "ModelDeclared")
    ]
    assert (len(book.share("gpu")), len(book.share("default"))) == (1, 0)


def test_a_pools_whole_share_is_cut_once_until_it_changes(book):
    book.make(catalog.ModelDeclared(world.spec("a")))
    before = book.whole("default")
    book.make(catalog.ModelDeclared(world.spec("b", pool="gpu")))
    assert book.whole("default") is before
    book.make(catalog.ModelWithdrawn(model.ModelId("a")))
    assert (len(before[0]), book.whole("default")) == (1, ())


def test_a_model_that_moves_leaves_its_old_pool_with_its_aliases(book):
    book.make(catalog.ModelDeclared(world.spec("a")))
    book.make(ALIAS)
    moved = book.make(catalog.ModelDeclared(world.spec("a", pool="gpu")))
    assert told(moved) == [
        ("default", "ModelWithdrawn"),
        ("gpu", "ModelDeclared"),
        ("default", "AliasCleared"),
        ("gpu", "AliasSet"),
    ]


def test_routes_name_what_is_outside_the_default_pool(book):
    book.make(catalog.ModelDeclared(world.spec("a", pool="gpu")))
    book.make(ALIAS)
    book.make(catalog.ModelDeclared(world.spec("b")))
    assert book.routes == {"a": "gpu", "al": "gpu"}
    book.make(catalog.ModelWithdrawn(model.ModelId("a")))
    assert book.routes == {}


def test_an_alias_of_a_model_that_is_not_there_is_told_to_nobody_until_it_comes(book):
    assert told(book.make(ALIAS)) == []
    assert told(book.make(catalog.ModelDeclared(world.spec("a")))) == [
        ("default", "ModelDeclared"),
        ("default", "AliasSet"),
    ]
    assert told(book.make(catalog.ModelWithdrawn(model.ModelId("a")))) == [
        ("default", "ModelWithdrawn"),
        ("default", "AliasCleared"),
    ]
    assert book.aliases == {"al": ALIAS}


def test_an_alias_that_changes_its_meaning_changes_its_pool(book):
    book.make(catalog.ModelDeclared(world.spec("a")))
    book.make(catalog.ModelDeclared(world.spec("g", pool="gpu")))
    book.make(ALIAS)
    assert told(book.make(desired.DesiredAlias("al", "g"))) == [
        ("default", "AliasCleared"),
        ("gpu", "AliasSet"),
    ]
    assert (book.aliases_of("a"), book.aliases_of("g"), book.pool_of("al")) == (
        set(),
        {"al"},
        "gpu",
    )
    assert told(book.make(catalog.AliasCleared("al"))) == [("gpu", "AliasCleared")]


def test_a_model_is_needed_by_aliases_that_mean_it_and_that_will(book):
    book.make(catalog.ModelDeclared(world.spec("a")))
    book.make(desired.DesiredAlias("moving", "a", target="b"))
    assert (
        [alias.alias for alias in book.needing("a")]
        == ["moving"]
        == [alias.alias for alias in book.needing("b")]
    )
    book.make(desired.DesiredAlias("moving", "b"))
    assert book.moving() == ()


def test_what_an_origin_declared_is_known(book):
    book.make(catalog.ModelDeclared(world.spec("a", origin=model.FROM_CONFIG)))
    assert book.of_origin(model.FROM_CONFIG) == {model.ModelId("a")}
    book.make(catalog.ModelDeclared(world.spec("a", origin=model.FROM_API)))
    assert book.of_origin(model.FROM_CONFIG) == set()


def test_withdrawing_what_is_not_there_changes_nothing(book):
    assert (
        book.make(catalog.ModelWithdrawn(model.ModelId("a")))
        == ()
        == book.make(catalog.AliasCleared("al"))
    )


def test_changes_bear_on_the_models_that_aliases_meant_before_and_mean_after(book):
    book.make(ALIAS)
    touched = book.touched(
        (
            desired.DesiredAlias("al", "b"),
            catalog.ModelDeclared(world.spec("c")),
            catalog.ModelWithdrawn(model.ModelId("d")),
        )
    )
    assert touched == {"a": [], "b": [], "c": [model.ModelId("c")], "d": []}


def test_routes_are_asked_for_by_name_with_aliases(book):
    book.make(catalog.ModelDeclared(world.spec("a", pool="gpu")))
    book.make(ALIAS)
    assert book.routes_of(["a"]) == {"a": "gpu", "al": "gpu"}
