"""The same promises on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa

from meshserve import errors, registry
from meshserve.core.values import catalog, desired, model, reports
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


def reopened(url):
    opened = registry.SqlRegistry(url)
    try:
        return opened.load()
    finally:
        opened.close()


def models(contents):
    return {
        each.spec.id: each for each in contents.changes if isinstance(each, catalog.ModelDeclared)
    }


def test_a_new_registry_is_empty_and_has_a_name_of_its_own(made, url):
    contents = made.load()
    assert (contents.changes, contents.document) == ((), "")
    assert contents.mesh_id == reopened(url).mesh_id != ""


def test_what_is_saved_is_there_when_it_is_opened_again(made, url):
    made.save(
        [
            desired.Desired(document='{"a": 1}'),
            catalog.ModelDeclared(RICH),
            catalog.ModelDeclared(world.spec("m")),
            ALIAS,
        ]
    )
    contents = reopened(url)
    assert models(contents)[RICH.id].spec == RICH
    assert models(contents)[model.ModelId("m")].spec == world.spec("m")
    assert ALIAS in contents.changes
    assert contents.document == '{"a": 1}'


def test_what_is_saved_again_takes_the_place_of_what_was(made):
    for uri in ("/one", "/two"):
        made.save(
            [
                catalog.ModelDeclared(world.spec("m", uri=uri)),
                desired.DesiredAlias("al", uri),
                desired.Desired(document=uri),
            ]
        )
    contents = made.load()
    assert [each.spec.uri for each in models(contents).values()] == ["/two"]
    assert desired.DesiredAlias("al", "/two") in contents.changes
    assert contents.document == "/two"


def test_what_is_withdrawn_is_gone_and_nothing_else(made):
    made.save(
        [
            catalog.ModelDeclared(world.spec("m", "1")),
            catalog.ModelDeclared(world.spec("m", "2")),
            ALIAS,
        ]
    )
    made.save(
        [
            catalog.ModelWithdrawn(model.ModelId("m", "1")),
            catalog.AliasCleared("al"),
            catalog.AliasCleared("none"),
        ]
    )
    assert [each.spec.id for each in made.load().changes] == [("m", "2")]


def test_changes_hold_in_the_order_in_which_they_are_given(made):
    made.save(
        [
            catalog.ModelDeclared(world.spec("m")),
            catalog.ModelWithdrawn(model.ModelId("m")),
            catalog.ModelDeclared(world.spec("m", uri="/last")),
        ]
    )
    assert [each.spec.uri for each in made.load().changes] == ["/last"]


def test_changes_are_saved_all_or_none(made):
    unwritable = world.spec("m", options={"x": object()})
    with pytest.raises(TypeError):
        made.save(
            [catalog.ModelDeclared(world.spec("n")), ALIAS, catalog.ModelDeclared(unwritable)]
        )
    assert made.load().changes == ()


def test_what_was_measured_comes_back_with_every_model_of_the_same_bytes(made):
    made.save([catalog.ModelDeclared(world.spec(name)) for name in ("a", "b", "other")])
    measured = model.Measured("sha256:1", model.Footprint(2**40, 5), 0.25)
    made.remember(
        [reports.LearnedMeasurement(model.ModelId(name), measured) for name in ("a", "b", "gone")]
    )
    found = models(made.load())
    assert {id_.name: each.measured for id_, each in found.items()} == {
        "a": measured,
        "b": measured,
        "other": None,
    }


def test_what_was_measured_of_other_bytes_is_forgotten(made):
    made.save([catalog.ModelDeclared(world.spec("a"))])
    made.remember(
        [
            reports.LearnedMeasurement(
                model.ModelId("a"), model.Measured("sha256:1", model.Footprint(1), 0.1)
            )
        ]
    )
    made.save([catalog.ModelDeclared(world.spec("a", uri="/new"))])
    assert models(made.load())[model.ModelId("a")].measured is None


def test_many_models_are_saved_at_once(made):
    made.save([catalog.ModelDeclared(world.spec(f"m{number}")) for number in range(3000)])
    assert len(made.load().changes) == 3000


def test_nothing_is_saved_by_saving_nothing(made):
    made.save([])
    made.remember([])
    assert made.load().changes == ()


def test_a_newer_schema_is_refused_by_name(made, url):
    made.load()
    made.close()
    alter(url, "UPDATE meshserve_settings SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(
        errors.ConfigInvalid, match="schema has version 99, this meshserve reads version 1"
    ):
        reopened(url)


def test_a_database_that_lost_tables_is_refused(made, url):
    made.load()
    made.close()
    alter(url, "DROP TABLE meshserve_aliases")
    with pytest.raises(errors.ConfigInvalid, match="tables are missing: meshserve_aliases"):
        reopened(url)


def test_others_tables_in_the_same_database_are_left_alone(made, url):
    alter(url.replace("state/", ""), "CREATE TABLE models (id INTEGER)")
    made.save([catalog.ModelDeclared(world.spec("m"))])
    assert len(reopened(url).changes) == 1


def alter(url, statement):
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def test_a_registry_that_breaks_later_is_unavailable(made, url):
    made.load()
    alter(url, "DROP TABLE meshserve_models")
    with pytest.raises(errors.Unavailable, match="registry"):
        made.save([catalog.ModelDeclared(world.spec("m"))])


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("postgresql://me:secret@127.0.0.1:1/mesh", "Connection refused"),
        ("mysql://localhost/mesh", "expected sqlite:///FILE or postgresql://"),
        ("nonsense", "is not a database's URL"),
        ("sqlite:////proc/none/registry.db", "no such file"),
    ],
)
def test_a_database_that_is_not_there_is_a_mistake_in_the_configuration(bad, why):
    with pytest.raises(errors.ConfigInvalid, match=why) as caught:
        registry.SqlRegistry(bad).load()
    assert "secret" not in caught.value.message


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("not a database" * 100)
    with pytest.raises(errors.ConfigInvalid, match=r"notes\.txt: file is not a database"):
        registry.SqlRegistry(f"sqlite:///{file}").load()
    assert file.read_text() == "not a database" * 100


def test_a_sqlite_file_is_its_owners_alone_and_survives_a_crash(tmp_path):
    opened = registry.SqlRegistry(f"sqlite:///{tmp_path}/registry.db")
    opened.load()
    file = Path(tmp_path / "registry.db")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    opened.close()
