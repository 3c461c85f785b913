from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshserve.core.catalog import catalog_index
from meshserve.core.values import catalog, desired, model, reports
from tests.core import world

ALIAS = desired.DesiredAlias("al", "a")


@pytest.fixture
def index() -> Iterator[catalog_index.CatalogIndex]:
    index = catalog_index.CatalogIndex()
    yield index
    index.check()


def changes_of(index: tuple[catalog_index.PoolChange, ...]) -> list[tuple[str, str]]:
    return [(item.pool, type(item.change).__name__) for item in index]


def test_a_model_changes_the_catalog_of_its_pool_alone(index: catalog_index.CatalogIndex) -> None:
    assert changes_of(index.apply(catalog.ModelDeclared(world.spec("a", pool="gpu")))) == [
        ("gpu", "ModelDeclared")
    ]
    assert (len(index.share("gpu")), len(index.share("default"))) == (1, 0)


def test_a_pools_catalog_is_cut_once_until_it_changes(index: catalog_index.CatalogIndex) -> None:
    index.apply(catalog.ModelDeclared(world.spec("a")))
    before = index.parts("default")
    index.apply(catalog.ModelDeclared(world.spec("b", pool="gpu")))
    assert index.parts("default") is before
    index.apply(catalog.ModelWithdrawn(model.ModelId("a")))
    assert (len(before[0]), index.parts("default")) == (1, ())


def test_a_model_that_moves_leaves_its_old_pool_with_its_aliases(
    index: catalog_index.CatalogIndex,
) -> None:
    index.apply(catalog.ModelDeclared(world.spec("a")))
    index.apply(ALIAS)
    moved = index.apply(catalog.ModelDeclared(world.spec("a", pool="gpu")))
    assert changes_of(moved) == [
        ("default", "ModelWithdrawn"),
        ("gpu", "ModelDeclared"),
        ("default", "AliasCleared"),
        ("gpu", "AliasSet"),
    ]


def test_routes_name_what_is_outside_the_default_pool(index: catalog_index.CatalogIndex) -> None:
    index.apply(catalog.ModelDeclared(world.spec("a", pool="gpu")))
    index.apply(ALIAS)
    index.apply(catalog.ModelDeclared(world.spec("b")))
    assert index.routes == {"a": "gpu", "al": "gpu"}
    index.apply(catalog.ModelWithdrawn(model.ModelId("a")))
    assert index.routes == {}


def test_an_alias_of_a_missing_model_waits_for_the_model(index: catalog_index.CatalogIndex) -> None:
    assert changes_of(index.apply(ALIAS)) == []
    assert changes_of(index.apply(catalog.ModelDeclared(world.spec("a")))) == [
        ("default", "ModelDeclared"),
        ("default", "AliasSet"),
    ]
    assert changes_of(index.apply(catalog.ModelWithdrawn(model.ModelId("a")))) == [
        ("default", "ModelWithdrawn"),
        ("default", "AliasCleared"),
    ]
    assert index.aliases == {"al": ALIAS}


def test_an_alias_that_changes_its_meaning_changes_its_pool(
    index: catalog_index.CatalogIndex,
) -> None:
    index.apply(catalog.ModelDeclared(world.spec("a")))
    index.apply(catalog.ModelDeclared(world.spec("g", pool="gpu")))
    index.apply(ALIAS)
    assert changes_of(index.apply(desired.DesiredAlias("al", "g"))) == [
        ("default", "AliasCleared"),
        ("gpu", "AliasSet"),
    ]
    assert (index.aliases_of("a"), index.aliases_of("g"), index.pool_of("al")) == (
        frozenset(),
        frozenset({"al"}),
        "gpu",
    )
    assert changes_of(index.apply(catalog.AliasCleared("al"))) == [("gpu", "AliasCleared")]


def test_a_model_is_needed_by_aliases_that_mean_it_and_that_will(
    index: catalog_index.CatalogIndex,
) -> None:
    index.apply(catalog.ModelDeclared(world.spec("a")))
    index.apply(desired.DesiredAlias("moving", "a", target="b"))
    assert (
        [alias.alias for alias in index.needing("a")]
        == ["moving"]
        == [alias.alias for alias in index.needing("b")]
    )
    index.apply(desired.DesiredAlias("moving", "b"))
    assert index.moving() == ()


def test_models_are_known_by_origin(index: catalog_index.CatalogIndex) -> None:
    index.apply(catalog.ModelDeclared(world.spec("a", origin=model.FROM_CONFIG)))
    assert index.of_origin(model.FROM_CONFIG) == {model.ModelId("a")}
    index.apply(catalog.ModelDeclared(world.spec("a", origin=model.FROM_API)))
    assert index.of_origin(model.FROM_CONFIG) == set()


def test_withdrawing_a_missing_model_changes_nothing(index: catalog_index.CatalogIndex) -> None:
    assert (
        index.apply(catalog.ModelWithdrawn(model.ModelId("a")))
        == ()
        == index.apply(catalog.AliasCleared("al"))
    )


def test_an_alias_change_affects_its_old_and_its_new_model(
    index: catalog_index.CatalogIndex,
) -> None:
    index.apply(ALIAS)
    touched = index.affected_names(
        (
            desired.DesiredAlias("al", "b"),
            catalog.ModelDeclared(world.spec("c")),
            catalog.ModelWithdrawn(model.ModelId("d")),
        )
    )
    assert touched == {"a": [], "b": [], "c": [model.ModelId("c")], "d": []}


def test_routes_of_a_name_include_its_aliases(index: catalog_index.CatalogIndex) -> None:
    index.apply(catalog.ModelDeclared(world.spec("a", pool="gpu")))
    index.apply(ALIAS)
    assert index.routes_of(["a"]) == {"a": "gpu", "al": "gpu"}


def test_footprints_differ_by_more_than_measuring_does(index: catalog_index.CatalogIndex) -> None:
    def learn(host_bytes: int, gpu_bytes: int) -> tuple[int, list[str]]:
        measured = model.Measured("sha256:a", model.Footprint(host_bytes, gpu_bytes), 1.0)
        learning = reports.LearnedMeasurement(model.ModelId("a"), measured)
        learned, by_pool = index.learn([learning])
        return len(learned), list(by_pool)

    index.apply(catalog.ModelDeclared(world.spec("a")))
    assert learn(100, 0) == (1, ["default"])
    assert learn(125, 0) == (0, [])
    assert learn(126, 0) == (1, ["default"])
    assert learn(126, 1) == (1, ["default"])


def test_a_measurement_that_comes_during_a_save_is_kept(index: catalog_index.CatalogIndex) -> None:
    index.apply(catalog.ModelDeclared(world.spec("a")))
    measured = model.Measured("sha256:a", model.Footprint(100), 1.0)
    index.learn([reports.LearnedMeasurement(model.ModelId("a"), measured)])
    saved = catalog.ModelDeclared(world.spec("a", pinned=True))
    by_pool = index.apply_saved([saved])
    assert by_pool == {"default": [catalog.ModelDeclared(saved.spec, measured)]}
    index.apply_saved([catalog.ModelDeclared(world.spec("a", uri="/other"))])
    declared = index.models.declared(model.ModelId("a"))
    assert declared is not None
    assert declared.measured is None
