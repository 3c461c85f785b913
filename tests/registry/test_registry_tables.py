from __future__ import annotations

import dataclasses
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.values import desired, model
from meshserve.registry import registry_tables
from tests.core import world

TENSORS = st.builds(
    model.TensorSpec,
    st.text(),
    st.sampled_from(["FP32", "BYTES"]),
    st.lists(st.integers(-1, 9)).map(tuple),
)
ORIGINS = st.sampled_from([model.FROM_CONFIG, model.FROM_API, model.FROM_ALIAS]) | st.builds(
    model.Origin, st.just(model.OriginKind.REPOSITORY), st.text()
)
SPECS = st.builds(
    model.ModelSpec,
    id=st.builds(model.ModelId, st.text(), st.text()),
    uri=st.text(),
    runtime=st.text(),
    pool=st.text(),
    pinned=st.booleans(),
    load_timeout_s=st.floats(0, 1e6),
    max_batch_size=st.integers(0, 2**31),
    inputs=st.lists(TENSORS, max_size=2).map(tuple),
    outputs=st.lists(TENSORS, max_size=2).map(tuple),
    options=st.dictionaries(st.text(), st.booleans() | st.text() | st.integers(-(2**53), 2**53)),
    origin=ORIGINS,
)


@given(SPECS)
def test_a_spec_is_parsed_from_its_text(spec: model.ModelSpec) -> None:
    text = registry_tables.spec_text(spec)
    assert registry_tables.parse_spec(spec.id.name, spec.id.version, text) == spec


@given(SPECS, st.lists(SPECS, max_size=2))
def test_a_spec_keeps_what_it_replaces(
    spec: model.ModelSpec, others: list[model.ModelSpec]
) -> None:
    replaced = tuple(
        dataclasses.replace(other, id=model.ModelId(spec.id.name, other.id.version))
        for other in others
    )
    overriding = dataclasses.replace(spec, replaced=replaced)
    text = registry_tables.spec_text(overriding)
    assert registry_tables.parse_spec(spec.id.name, spec.id.version, text) == overriding


@given(
    st.builds(
        desired.DesiredAlias,
        *[st.text()] * 3,
        ORIGINS,
        *[st.text()] * 3,
        st.lists(st.builds(model.ModelId, st.text(), st.text()), max_size=3).map(tuple),
    ),
)
def test_an_alias_is_parsed_from_its_text(alias: Any) -> None:
    assert registry_tables.parse_alias(alias.alias, registry_tables.alias_text(alias)) == alias


def test_the_row_keeps_the_text_of_an_origin() -> None:
    spec = model.ModelSpec(
        model.ModelId("a"), "/x", origin=model.Origin(model.OriginKind.REPOSITORY, "/models")
    )
    assert orjson.loads(registry_tables.spec_text(spec))["origin"] == "repository:/models"


def test_unknown_fields_are_ignored() -> None:
    text = orjson.dumps({"uri": "/x", "colour": "blue"}).decode()
    assert registry_tables.parse_spec("a", "1", text) == model.ModelSpec(model.ModelId("a"), "/x")
    assert registry_tables.parse_alias(
        "al", '{"name": "a", "colour": "blue"}'
    ) == desired.DesiredAlias("al", "a")


def test_names_of_tables_begin_with_meshserve() -> None:
    assert all(name.startswith("meshserve_") for name in registry_tables.metadata.tables)


def test_a_model_is_found_by_its_id() -> None:
    assert [column.name for column in registry_tables.models.primary_key] == list(
        model.ModelId._fields
    )


def test_the_text_of_a_spec_has_no_id() -> None:
    assert not {'"id"', '"name"', '"version"'} & set(
        registry_tables.spec_text(world.spec("a")).split(":")
    )
