"""The same promises on SQLite and on PostgreSQL."""

from __future__ import annotations

import dataclasses
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from meshserve import errors, registry
from meshserve.core.values import catalog, containment, desired, model, nodes, reports
from tests.core import world

RICH = world.spec(
    "räksmörgås 🦐",
    "2024-01",
    runtime="onnx",
    pool="gpu",
    pinned=True,
    trust=True,
    checksum="sha256:" + "0" * 64,
    load_timeout_s=7.5,
    batching=False,
    max_batch_size=3,
    inputs=(model.TensorSpec("x", "FP32", (-1, 4)),),
    outputs=(model.TensorSpec("y", "BYTES", ()),),
    options={"nested": {"list": [1, None, "a"]}, "big": 2**40},
    origin=model.Origin.parse("repository:/r"),
)
ALIAS = desired.DesiredAlias("al", "m", "1", model.FROM_API, "me", "n", "it is broken")


def reopened(url: str) -> Any:
    opened = registry.SqlRegistry(url)
    try:
        return opened.load()
    finally:
        opened.close()


def models(contents: Any) -> Any:
    return {
        change.spec.id: change
        for change in contents.changes
        if isinstance(change, catalog.ModelDeclared)
    }


def test_a_new_registry_is_empty_and_has_its_own_mesh_id(
    sql_registry: registry.SqlRegistry, url: str
) -> None:
    contents = sql_registry.load()
    assert (contents.changes, contents.document) == ((), "")
    assert contents.mesh_id == reopened(url).mesh_id != ""


def test_changes_are_loaded_when_it_is_opened_again(
    sql_registry: registry.SqlRegistry, url: str
) -> None:
    sql_registry.save(
        [
            desired.Desired(document='{"a": 1}'),
            catalog.ModelDeclared(RICH, None, "file:///rich#stamp", "file:///poor"),
            catalog.ModelDeclared(world.spec("m")),
            ALIAS,
        ]
    )
    contents = reopened(url)
    assert models(contents)[RICH.id].stamped_uri == "file:///rich#stamp"
    assert models(contents)[RICH.id].earlier_uri == "file:///poor"
    assert models(contents)[model.ModelId("m")].stamped_uri == ""
    assert models(contents)[RICH.id].spec == RICH
    assert models(contents)[model.ModelId("m")].spec == world.spec("m")
    assert ALIAS in contents.changes
    assert contents.document == '{"a": 1}'


def test_a_later_change_replaces_an_earlier_one(sql_registry: registry.SqlRegistry) -> None:
    for uri in ("/one", "/two"):
        sql_registry.save(
            [
                catalog.ModelDeclared(world.spec("m", uri=uri)),
                desired.DesiredAlias("al", uri),
                desired.Desired(document=uri),
            ]
        )
    contents = sql_registry.load()
    assert [change.spec.uri for change in models(contents).values()] == ["/two"]
    assert desired.DesiredAlias("al", "/two") in contents.changes
    assert contents.document == "/two"


def test_only_withdrawn_entries_are_gone(sql_registry: registry.SqlRegistry) -> None:
    sql_registry.save(
        [
            catalog.ModelDeclared(world.spec("m", "1")),
            catalog.ModelDeclared(world.spec("m", "2")),
            ALIAS,
        ]
    )
    sql_registry.save(
        [
            catalog.ModelWithdrawn(model.ModelId("m", "1")),
            catalog.AliasCleared("al"),
            catalog.AliasCleared("none"),
        ]
    )
    assert list(models(sql_registry.load())) == [("m", "2")]


def test_changes_are_saved_in_their_order(sql_registry: registry.SqlRegistry) -> None:
    sql_registry.save(
        [
            catalog.ModelDeclared(world.spec("m")),
            catalog.ModelWithdrawn(model.ModelId("m")),
            catalog.ModelDeclared(world.spec("m", uri="/last")),
        ]
    )
    assert [change.spec.uri for change in models(sql_registry.load()).values()] == ["/last"]


def test_changes_are_saved_all_or_none(sql_registry: registry.SqlRegistry) -> None:
    unwritable = world.spec("m", options={"x": object()})
    with pytest.raises(TypeError):
        sql_registry.save(
            [catalog.ModelDeclared(world.spec("n")), ALIAS, catalog.ModelDeclared(unwritable)]
        )
    assert sql_registry.load().changes == ()


def test_a_measurement_is_loaded_with_every_model_of_the_same_bytes(
    sql_registry: registry.SqlRegistry,
) -> None:
    sql_registry.save([catalog.ModelDeclared(world.spec(name)) for name in ("a", "b", "other")])
    measured = model.Measured("sha256:1", model.Footprint(2**40, 5), 0.25)
    sql_registry.remember(
        [reports.LearnedMeasurement(model.ModelId(name), measured) for name in ("a", "b", "gone")]
    )
    by_id = models(sql_registry.load())
    assert {id_.name: change.measured for id_, change in by_id.items()} == {
        "a": measured,
        "b": measured,
        "other": None,
    }


def test_a_measurement_of_other_bytes_is_forgotten(sql_registry: registry.SqlRegistry) -> None:
    sql_registry.save([catalog.ModelDeclared(world.spec("a"))])
    sql_registry.remember(
        [
            reports.LearnedMeasurement(
                model.ModelId("a"), model.Measured("sha256:1", model.Footprint(1), 0.1)
            )
        ]
    )
    sql_registry.save([catalog.ModelDeclared(world.spec("a", uri="/new"))])
    assert models(sql_registry.load())[model.ModelId("a")].measured is None


def test_many_models_are_saved_at_once(sql_registry: registry.SqlRegistry) -> None:
    sql_registry.save([catalog.ModelDeclared(world.spec(f"m{number}")) for number in range(3000)])
    assert len(sql_registry.load().changes) == 3000


def test_no_changes_save_nothing(sql_registry: registry.SqlRegistry) -> None:
    sql_registry.save([])
    sql_registry.remember([])
    assert sql_registry.load().changes == ()


def test_a_newer_schema_is_refused_by_name(sql_registry: registry.SqlRegistry, url: str) -> None:
    sql_registry.load()
    sql_registry.close()
    alter(url, "UPDATE meshserve_settings SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(
        errors.ConfigInvalid, match="schema has version 99, this meshserve reads version 1"
    ):
        reopened(url)


def test_a_database_that_lost_tables_is_refused(
    sql_registry: registry.SqlRegistry, url: str
) -> None:
    sql_registry.load()
    sql_registry.close()
    alter(url, "DROP TABLE meshserve_aliases")
    with pytest.raises(errors.ConfigInvalid, match="tables are missing: meshserve_aliases"):
        reopened(url)


def test_quarantines_are_kept_until_they_end(sql_registry: registry.SqlRegistry, url: str) -> None:
    held = containment.CopyQuarantined(
        f"sha256:{'0' * 64}/{'1' * 12}",
        (model.ModelId("a"), model.ModelId("räksmörgås 🦐", "2024-01")),
        "it ends its process: killed by SIGSEGV",
    )
    sql_registry.save([held])
    more = dataclasses.replace(held, ids=(*held.ids, model.ModelId("c")))
    sql_registry.save([more])
    assert reopened(url).changes == (more,)
    sql_registry.save([containment.QuarantineEnded(held.key)])
    assert reopened(url).changes == ()


def test_a_registry_from_before_quarantines_gets_their_table(
    sql_registry: registry.SqlRegistry, url: str
) -> None:
    sql_registry.save([catalog.ModelDeclared(world.spec("m"))])
    sql_registry.close()
    alter(url, "DROP TABLE meshserve_quarantines")
    assert len(reopened(url).changes) == 1
    held = containment.CopyQuarantined("sha256:a/1", (model.ModelId("m"),), "SIGSEGV")
    sql_registry.save([held])
    assert len(reopened(url).changes) == 2


def test_wishes_to_drain_nodes_are_kept_until_they_end(
    sql_registry: registry.SqlRegistry, url: str
) -> None:
    wish = nodes.NodeDraining("ab" * 28, 60.5)
    sql_registry.save([wish])
    changed = dataclasses.replace(wish, is_ended=True)
    sql_registry.save([changed])
    assert reopened(url).changes == (changed,)
    sql_registry.save([nodes.NodeDrainingEnded(wish.node)])
    assert reopened(url).changes == ()


def test_others_tables_in_the_same_database_are_left_alone(
    sql_registry: registry.SqlRegistry, url: str
) -> None:
    alter(url.replace("state/", ""), "CREATE TABLE models (id INTEGER)")
    sql_registry.save([catalog.ModelDeclared(world.spec("m"))])
    assert len(reopened(url).changes) == 1


def alter(url: str, statement: Any) -> None:
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def test_a_registry_that_breaks_later_is_unavailable(
    sql_registry: registry.SqlRegistry, url: str
) -> None:
    sql_registry.load()
    alter(url, "DROP TABLE meshserve_models")
    with pytest.raises(errors.Unavailable, match="registry"):
        sql_registry.save([catalog.ModelDeclared(world.spec("m"))])


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("postgresql://me:secret@127.0.0.1:1/mesh", "Connection refused"),
        ("mysql://localhost/mesh", "expected sqlite:///FILE or postgresql://"),
        ("nonsense", "is not a database's URL"),
        ("sqlite:////proc/none/registry.db", "no such file"),
    ],
)
def test_an_unreachable_database_is_a_mistake_in_the_configuration(bad: Any, why: Any) -> None:
    with pytest.raises(errors.ConfigInvalid, match=why) as caught:
        registry.SqlRegistry(bad).load()
    assert "secret" not in caught.value.message


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database" * 100)
    with pytest.raises(errors.ConfigInvalid, match=r"notes\.txt: file is not a database"):
        registry.SqlRegistry(f"sqlite:///{file}").load()
    assert file.read_text() == "not a database" * 100


def test_a_sqlite_file_is_its_owners_alone_and_survives_a_crash(tmp_path: Path) -> None:
    opened = registry.SqlRegistry(f"sqlite:///{tmp_path}/registry.db")
    opened.load()
    file = Path(tmp_path / "registry.db")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    opened.close()
