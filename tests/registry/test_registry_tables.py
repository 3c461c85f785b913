from __future__ import annotations

from meshserve.core.values import model
from meshserve.registry import registry_tables, rows
from tests.core import world


def test_every_table_can_live_beside_others():
    assert all(name.startswith("meshserve_") for name in registry_tables.metadata.tables)


def test_a_model_is_found_by_its_id():
    assert [column.name for column in registry_tables.models.primary_key] == list(
        model.ModelId._fields
    )


def test_what_a_row_says_apart_from_its_text_is_not_in_the_text():
    assert not {'"id"', '"name"', '"version"'} & set(rows.spec_text(world.spec("a")).split(":"))
