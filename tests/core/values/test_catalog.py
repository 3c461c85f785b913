from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshserve import errors
from meshserve.core.values import catalog, model

names = st.sampled_from(["a", "b", "c"])
versions = st.sampled_from(["1", "2", "10", "010", "beta", "v2", ""])
ids = st.builds(model.ModelId, names, versions)
declarations = st.builds(
    catalog.ModelDeclared,
    st.builds(model.ModelSpec, ids, st.sampled_from(["file:///x", "file:///y"])),
    st.none() | st.just(model.Measured("sha256:0", model.Footprint(5), 0.1)),
)
aliases = st.sampled_from(["x", "y"])
changes = st.one_of(
    declarations,
    st.builds(catalog.ModelWithdrawn, ids),
    st.builds(catalog.AliasSet, aliases, names, versions),
    st.builds(catalog.AliasCleared, aliases),
)


def declared(name: str, version: str = "1", uri: str = "file:///m") -> catalog.ModelDeclared:
    return catalog.ModelDeclared(model.ModelSpec(model.ModelId(name, version), uri))


def test_a_model_without_a_version_means_the_newest() -> None:
    models = catalog.Catalog([declared("a", "2"), declared("a", "10"), declared("a", "9")])
    assert models.resolve("a") == model.ModelId("a", "10")
    assert models.resolve("a", "2") == model.ModelId("a", "2")
    assert models.versions("a") == ("2", "9", "10")


@pytest.mark.parametrize("order", [("1", "3", "2"), ("3", "2", "1"), ("2", "3", "3")])
def test_the_newest_version_is_the_same_in_any_order_of_declarations(
    order: tuple[str, ...],
) -> None:
    models = catalog.Catalog(declared("a", version) for version in order)
    assert models.resolve("a").version == "3"
    assert models.declarations("a").keys() == set(order)
    assert not models.declarations("b")


def test_withdrawing_the_newest_version_makes_another_the_newest() -> None:
    models = catalog.Catalog(
        [declared("a", "2"), declared("a", "1"), catalog.ModelWithdrawn(model.ModelId("a", "2"))]
    )
    assert models.resolve("a") == model.ModelId("a", "1")


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(errors.ModelNotFound, match="'b' is not registered"):
        catalog.Catalog([declared("a")]).resolve("b")


def test_the_error_of_an_unknown_version_lists_the_known_ones() -> None:
    with pytest.raises(errors.ModelNotFound, match="no version '3'; there is: 1, 2"):
        catalog.Catalog([declared("a", "2"), declared("a", "1")]).resolve("a", "3")


def test_a_model_goes_with_its_last_version() -> None:
    models = catalog.Catalog([declared("a"), catalog.ModelWithdrawn(model.ModelId("a"))])
    assert models.versions("a") == ()
    assert models.declared(model.ModelId("a")) is None


def test_an_alias_means_a_version_or_the_newest_unless_the_request_says_which() -> None:
    models = catalog.Catalog(
        [
            declared("a", "1"),
            declared("a", "2"),
            catalog.AliasSet("old", "a", "1"),
            catalog.AliasSet("any", "a"),
        ]
    )
    assert models.resolve("old") == model.ModelId("a", "1")
    assert models.resolve("any") == model.ModelId("a", "2")
    assert models.resolve("old", "2") == model.ModelId("a", "2")
    assert [alias.alias for alias in models.aliases()] == ["any", "old"]


def test_the_error_of_a_dangling_alias_says_what_it_meant_and_what_there_is() -> None:
    models = catalog.Catalog([declared("a", "2"), declared("a", "10")])
    models.apply(catalog.AliasSet("prod", "a", "3"))
    models.apply(catalog.AliasSet("gone", "b", ""))
    with pytest.raises(
        errors.ModelNotFound,
        match=r"alias 'prod' means version '3' of model 'a', which went away: .*there is: 2, 10$",
    ):
        models.resolve("prod")
    with pytest.raises(errors.ModelNotFound, match="alias 'gone' means model 'b', which went"):
        models.resolve("gone")
    with pytest.raises(errors.ModelNotFound, match=r"^model 'a' has no version '4'"):
        models.resolve("prod", "4")
    assert models.resolve("prod", "2") == model.ModelId("a", "2")


def test_a_cleared_alias_means_nothing() -> None:
    models = catalog.Catalog([declared("a"), catalog.AliasSet("x", "a")])
    assert models.alias("x")
    models.apply(catalog.AliasCleared("x"))
    models.apply(catalog.AliasCleared("x"))
    assert models.alias("x") is None


def test_withdrawing_an_unknown_model_changes_nothing() -> None:
    models = catalog.Catalog([declared("a")])
    models.apply(catalog.ModelWithdrawn(model.ModelId("b")))
    models.apply(catalog.ModelWithdrawn(model.ModelId("a", "7")))
    assert models.changes() == (declared("a"),)


def test_a_later_declaration_takes_the_place_of_an_earlier_one() -> None:
    models = catalog.Catalog([declared("a", uri="file:///old"), declared("a", uri="file:///new")])
    assert len(models) == 1
    assert models.declared(model.ModelId("a")) == declared("a", uri="file:///new")


@settings(deadline=None)
@given(st.lists(changes, max_size=20))
def test_a_catalog_is_made_again_from_its_changes(history: list[catalog.Change]) -> None:
    models = catalog.Catalog(history)
    again = catalog.Catalog(models.changes())
    assert list(again) == list(models)
    assert again.aliases() == models.aliases()
    assert [again.versions(name) for name in "abc"] == [models.versions(name) for name in "abc"]


@settings(deadline=None)
@given(st.lists(changes, max_size=20), names | aliases, versions)
def test_each_resolved_model_was_declared(
    history: list[catalog.Change], name: str, version: str
) -> None:
    models = catalog.Catalog(history)
    try:
        resolved = models.resolve(name, version)
    except errors.ModelNotFound:
        alias = models.alias(name)
        meant = (alias.name, version or alias.version) if alias else (name, version)
        assert meant[1] not in models.versions(meant[0]) or not meant[1]
        assert meant[1] or not models.versions(meant[0])
    else:
        assert models.declared(resolved) is not None


def test_what_was_measured_holds_for_the_same_place_only() -> None:
    measured = model.Measured("sha256:0", model.Footprint(5), 0.1)
    known = catalog.ModelDeclared(declared("a").spec, measured)
    spec = known.spec
    assert known.measurement_for(dataclasses.replace(spec, pinned=True)) == measured
    assert known.measurement_for(dataclasses.replace(spec, uri="file:///n")) is None
    assert known.measurement_for(dataclasses.replace(spec, checksum="sha256:1")) is None


def test_a_stamp_of_a_repositorys_files_makes_no_other_place() -> None:
    # A half file that stayed would be forgotten to have loaded at the next start of the mesh.
    spec = dataclasses.replace(declared("a").spec, uri="file:///m/1#00e391c6f92d5330-5bce")
    known = catalog.ModelDeclared(spec, model.Measured("sha256:0", model.Footprint(5), 0.1))
    half = dataclasses.replace(spec, uri="file:///m/1#cb29f1f4dd65272e-5bce")
    assert known.measurement_for(half) == known.measured
    assert known.earlier_uri_for(half) == ""
    assert known.earlier_uri_for(dataclasses.replace(spec, uri="file:///n")) == spec.uri
    objects = [dataclasses.replace(spec, uri=f"s3://b/m#{number}") for number in range(2)]
    assert dataclasses.replace(known, spec=objects[0]).measurement_for(objects[1]) is None
