from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.values import desired, model
from meshserve.registry import rows

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
def test_a_spec_comes_back_as_it_was(spec):
    assert rows.spec_from(*spec.id, rows.spec_text(spec)) == spec


@given(
    st.builds(desired.DesiredAlias, *[st.text()] * 3, ORIGINS, *[st.text()] * 3),
)
def test_an_alias_comes_back_as_it_was(alias):
    assert rows.alias_from(alias.alias, rows.alias_text(alias)) == alias


def test_the_row_keeps_the_text_of_an_origin():
    spec = model.ModelSpec(
        model.ModelId("a"), "/x", origin=model.Origin(model.OriginKind.REPOSITORY, "/models")
    )
    assert orjson.loads(rows.spec_text(spec))["origin"] == "repository:/models"


def test_fields_that_are_not_known_yet_are_passed_over():
    text = orjson.dumps({"uri": "/x", "colour": "blue"}).decode()
    assert rows.spec_from("a", "1", text) == model.ModelSpec(model.ModelId("a"), "/x")
    assert rows.alias_from("al", '{"name": "a", "colour": "blue"}') == desired.DesiredAlias(
        "al", "a"
    )
