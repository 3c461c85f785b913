from __future__ import annotations

from typing import Any

import pytest

from meshserve.core.catalog import catalog_index, describe_changes
from meshserve.core.values import catalog, desired, llm_spec, model, snapshots
from tests.core import world

BEFORE = desired.Desired(
    pools=(world.pool(workers=1), world.pool("old")),
    repositories=(desired.RepositorySettings("/gone"), desired.RepositorySettings("/kept")),
    llms=(llm_spec.LlmSpec("kept", "/kept"), llm_spec.LlmSpec("old", "/old")),
)
KEY = snapshots.ApiKey("c", "k")


@pytest.fixture
def index() -> catalog_index.CatalogIndex:
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
    index: catalog_index.CatalogIndex, change: Any, words: str
) -> None:
    assert describe_changes.describe(index, [change]) == (words,)


def test_changed_settings_are_described(index: catalog_index.CatalogIndex) -> None:
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
    )
    assert describe_changes.describe(index, [after]) == (
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
        "repository /kept changed",
        "repository /added added",
        "repository /gone removed",
    )


def test_unchanged_settings_are_not_described(index: catalog_index.CatalogIndex) -> None:
    assert describe_changes.describe(index, [BEFORE]) == ()
