from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from meshserve import errors
from meshserve.core.catalog import catalog_index, changeset
from meshserve.core.values import catalog, desired, llm_spec, model, snapshots
from tests.core import world

REPOSITORY = model.Origin.parse("repository:/r")


@pytest.fixture
def index() -> catalog_index.CatalogIndex:
    index = catalog_index.CatalogIndex()
    index.apply(desired.Desired(pools=(world.pool(), world.pool("gpu"))))
    for name, origin in (
        ("api", model.FROM_API),
        ("config", model.FROM_CONFIG),
        ("repo", REPOSITORY),
        ("auto", model.FROM_ALIAS),
    ):
        index.apply(catalog.ModelDeclared(world.spec(name, origin=origin)))
    index.apply(desired.DesiredAlias("alias", "api"))
    return index


def new_draft(index: catalog_index.CatalogIndex) -> changeset.Changeset:
    return changeset.Changeset(index.models, index.aliases, index.desired)


def changes(
    index: catalog_index.CatalogIndex, *specs: model.ModelSpec, is_replacing: bool = False
) -> Any:
    draft = new_draft(index)
    for spec in specs:
        draft.declare(spec, is_replacing=is_replacing)
    draft.check()
    return draft.changes()


def test_the_same_once_more_changes_nothing(index: catalog_index.CatalogIndex) -> None:
    assert changes(index, world.spec("api")) == ()


def test_a_changed_definition_is_refused_unless_it_may_replace(
    index: catalog_index.CatalogIndex,
) -> None:
    changed = world.spec("api", uri="/new")
    with pytest.raises(errors.AlreadyExists, match="another definition"):
        changes(index, changed)
    assert changes(index, changed, is_replacing=True) == (
        catalog.ModelDeclared(changed, earlier_uri="/models/api/1"),
    )


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("config", model.FROM_API),
        ("repo", model.FROM_API),
        ("api", model.FROM_CONFIG),
        ("config", REPOSITORY),
        ("repo", model.Origin.parse("repository:/other")),
    ],
)
def test_no_origin_takes_the_name_of_another(
    index: catalog_index.CatalogIndex, name: str, origin: model.Origin
) -> None:
    with pytest.raises(errors.AlreadyExists, match="belongs to"):
        changes(index, world.spec(name, uri="/new", origin=origin), is_replacing=True)


def test_another_version_of_anothers_name_is_refused_too(index: catalog_index.CatalogIndex) -> None:
    with pytest.raises(errors.AlreadyExists, match="belongs to the configuration"):
        changes(index, world.spec("config", "2"))


def test_anothers_very_same_definition_is_no_change(index: catalog_index.CatalogIndex) -> None:
    assert changes(index, world.spec("config", origin=model.FROM_API)) == ()


def test_the_configuration_takes_a_repositorys_name_over_with_all_its_versions(
    index: catalog_index.CatalogIndex,
) -> None:
    index.apply(catalog.ModelDeclared(world.spec("repo", "2", origin=REPOSITORY)))
    taken = world.spec("repo", uri="/new", origin=model.FROM_CONFIG)
    assert changes(index, taken) == (
        catalog.ModelWithdrawn(model.ModelId("repo", "2")),
        catalog.ModelDeclared(taken, earlier_uri="/models/repo/1"),
    )


def meaning(index: catalog_index.CatalogIndex) -> desired.DesiredAlias:
    return index.aliases["alias"]


def test_an_alias_keeps_what_it_meant_before(index: catalog_index.CatalogIndex) -> None:
    for name, version in (
        ("config", "1"),
        ("repo", ""),
        ("repo", ""),
        ("auto", ""),
        ("config", "2"),
    ):
        draft = new_draft(index)
        draft.set_alias(desired.DesiredAlias("alias", name, version))
        for change in draft.changes():
            index.apply(change)
    assert meaning(index).before == (("auto", ""), ("repo", ""), ("config", "1"))
    draft = new_draft(index)
    draft.set_alias(desired.DesiredAlias("alias", "config", "2"))
    assert draft.changes() == ()
    (sent,) = index.share("default").aliases()
    assert sent == catalog.AliasSet("alias", "config", "2", meaning(index).before)


def test_a_model_of_another_file_says_which_one_loaded_before(
    index: catalog_index.CatalogIndex,
) -> None:
    measured = model.Measured("sha256:a", model.Footprint(1), 0.1)
    index.apply(catalog.ModelDeclared(world.spec("api"), measured, "/api#stamp"))
    for uri in ("/new", "/newer"):
        (declared,) = changes(index, world.spec("api", uri=uri), is_replacing=True)
        assert declared == catalog.ModelDeclared(world.spec("api", uri=uri), None, "", "/api#stamp")
        index.apply(declared)


def test_what_was_registered_for_an_alias_belongs_to_the_api(
    index: catalog_index.CatalogIndex,
) -> None:
    with pytest.raises(errors.AlreadyExists, match="another definition"):
        changes(index, world.spec("auto", uri="/new"))


def test_a_name_is_not_both_a_model_and_an_alias(index: catalog_index.CatalogIndex) -> None:
    with pytest.raises(errors.AlreadyExists, match="both a model and an alias"):
        changes(index, world.spec("alias"))


def test_a_name_that_is_freed_in_the_same_draft_can_be_taken(
    index: catalog_index.CatalogIndex,
) -> None:
    draft = new_draft(index)
    draft.clear_alias("alias")
    draft.declare(world.spec("alias"), is_replacing=False)
    draft.check()
    assert [type(change) for change in draft.changes()] == [
        catalog.AliasCleared,
        catalog.ModelDeclared,
    ]


def test_all_versions_are_in_one_pool(index: catalog_index.CatalogIndex) -> None:
    with pytest.raises(errors.InvalidRequest, match="must be in one pool"):
        changes(index, world.spec("api", "2", pool="gpu"))


def test_an_unknown_pool_is_refused(index: catalog_index.CatalogIndex) -> None:
    with pytest.raises(errors.InvalidRequest, match="no pool 'tpu'; there are: default, gpu"):
        changes(index, world.spec("new", pool="tpu"))


def test_a_pin_changes_nothing_else(index: catalog_index.CatalogIndex) -> None:
    draft = new_draft(index)
    draft.pin(model.ModelId("config"), is_pinned=True)
    assert draft.changes() == (
        catalog.ModelDeclared(world.spec("config", origin=model.FROM_CONFIG, pinned=True)),
    )
    with pytest.raises(errors.ModelNotFound):
        draft.pin(model.ModelId("none"), is_pinned=True)


@pytest.mark.parametrize("name", ["chat", "gpt", "sql"])
def test_no_model_and_no_alias_has_a_name_of_an_llm(
    index: catalog_index.CatalogIndex, name: str
) -> None:
    llm = llm_spec.LlmSpec(
        "chat", "/chat", aliases=("gpt",), adapters=(llm_spec.Adapter("sql", "/sql"),)
    )
    index.apply(dataclasses.replace(index.desired, llms=(llm,)))
    with pytest.raises(errors.AlreadyExists, match="name of an LLM"):
        changes(index, world.spec(name, origin=model.FROM_API))
    draft = new_draft(index)
    draft.set_alias(desired.DesiredAlias(name, "api"))
    with pytest.raises(errors.AlreadyExists, match="name of an LLM"):
        draft.check()


def test_no_llm_takes_the_name_of_a_model(index: catalog_index.CatalogIndex) -> None:
    wanted = dataclasses.replace(index.desired, llms=(llm_spec.LlmSpec("api", "/chat"),))
    draft = changeset.Changeset(index.models, index.aliases, wanted)
    with pytest.raises(errors.AlreadyExists, match="'api' is the name of an LLM"):
        draft.check()


# In words

BEFORE = desired.Desired(
    pools=(world.pool(workers=1), world.pool("old")),
    repositories=(desired.RepositorySettings("/gone"), desired.RepositorySettings("/kept")),
    llms=(llm_spec.LlmSpec("kept", "/kept"), llm_spec.LlmSpec("old", "/old")),
)
KEY = snapshots.ApiKey("c", "k")


@pytest.fixture
def described() -> catalog_index.CatalogIndex:
    index = catalog_index.CatalogIndex()
    index.apply(BEFORE)
    index.apply(catalog.ModelDeclared(world.spec("a")))
    return index


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (catalog.ModelDeclared(world.spec("b", "2")), "model b:2 added"),
        (
            catalog.ModelDeclared(world.spec("a", uri="/new", trust=True)),
            "model a:1 changed (uri, trust)",
        ),
        (catalog.ModelWithdrawn(model.ModelId("a")), "model a:1 withdrawn"),
        (desired.DesiredAlias("al", "a"), "alias al means a"),
        (desired.DesiredAlias("al", "a", target="b"), "alias al means a, then b"),
        (catalog.AliasCleared("al"), "alias al cleared"),
    ],
)
def test_a_change_of_the_catalog_is_one_line(
    described: catalog_index.CatalogIndex, change: Any, words: str
) -> None:
    assert changeset.describe(described.models, described.desired, [change]) == (words,)


def test_changed_settings_are_described(described: catalog_index.CatalogIndex) -> None:
    after = desired.Desired(
        pools=(world.pool(workers=3, queue_max=7), world.pool("new", 1)),
        gateway=desired.GatewaySettings("0.0.0.0:80", 10, (KEY,)),
        repositories=(
            desired.RepositorySettings("/kept", trust=True),
            desired.RepositorySettings("/added"),
        ),
        llms=(
            llm_spec.LlmSpec("kept", "/kept", replicas_min=0, engine={"seed": 1}),
            llm_spec.LlmSpec("new", "/new"),
        ),
        logs=desired.LogSettings("json"),
    )
    assert changeset.describe(described.models, described.desired, [after]) == (
        "pool default: 1 → 3 workers",
        "pool default: its workers are replaced, one after the other (queue_max)",
        "pool new added: 1 worker",
        "pool old removed",
        "llm new added",
        "llm kept changed (replicas_min, engine)",
        "llm old removed",
        "gateway listens on 0.0.0.0:80",
        "gateway takes requests of up to 10 bytes",
        "gateway's API keys changed",
        "logging changed: it counts from the next start of the mesh on",
        "repository /kept changed",
        "repository /added added",
        "repository /gone removed",
    )


def test_unchanged_settings_are_not_described(described: catalog_index.CatalogIndex) -> None:
    assert changeset.describe(described.models, described.desired, [BEFORE]) == ()


SCALING = desired.ScalingSettings(0)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((2, None), (2, SCALING), ("pool default: 2 → 0 to 2 workers",)),
        ((2, SCALING), (2, None), ("pool default: 0 to 2 → 2 workers",)),
        ((1, None), (2, SCALING), ("pool default: 1 → 0 to 2 workers",)),
        ((2, SCALING), (2, desired.ScalingSettings(1)), ("pool default: 0 to 2 → 1 to 2 workers",)),
        (
            (2, SCALING),
            (2, desired.ScalingSettings(0, grow_after_s=1.0, shrink_after_s=9.0)),
            ("pool default changed (grow_after_s, shrink_after_s)",),
        ),
        ((2, SCALING), (2, desired.ScalingSettings(0)), ()),
    ],
)
def test_what_changed_of_a_pool_s_size_is_told(
    before: Any, after: Any, words: tuple[str, ...]
) -> None:
    old, new = (
        desired.Desired(
            pools=(dataclasses.replace(world.pool(workers=workers), scaling=scaling, copies_max=8),)
        )
        for workers, scaling in (before, after)
    )
    assert changeset.describe(catalog.Catalog(), old, [new]) == words


def test_limits_of_a_pool_s_loads_and_copies_are_told() -> None:
    pool = dataclasses.replace(world.pool(), load_timeout_s=7.0, copies_max=3)
    old, new = (desired.Desired(pools=(one,)) for one in (world.pool(), pool))
    words = changeset.describe(catalog.Catalog(), old, [new])
    assert words == ("pool default changed (copies_max, load_timeout_s)",)
    added = dataclasses.replace(world.pool("rare"), scaling=SCALING)
    both = desired.Desired(pools=(pool, added))
    assert changeset.describe(catalog.Catalog(), new, [both]) == (
        "pool rare added: 0 to 2 workers",
    )


def test_files_that_are_known_for_the_first_time_are_no_change(
    index: catalog_index.CatalogIndex,
) -> None:
    for stamped_uri, words in (
        ("/api#one", "model api:1 added: its files are known now"),
        ("/api#two", "model api:1 changed (files)"),
    ):
        declared = catalog.ModelDeclared(world.spec("api"), None, stamped_uri)
        assert changeset.describe(index.models, index.desired, [declared]) == (words,)
        index.apply(declared)
