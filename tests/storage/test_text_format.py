from __future__ import annotations

import pytest
from google.protobuf import text_format as reference
from hypothesis import given
from hypothesis import strategies as st

from meshserve.protocol.pb import model_config_pb2
from meshserve.storage import text_format
from meshserve.storage.text_format import Word

CONFIGS = st.builds(
    model_config_pb2.ModelConfig,
    name=st.text(),
    max_batch_size=st.integers(0, 2**31 - 1),
    input=st.lists(
        st.builds(
            model_config_pb2.ModelInput,
            name=st.text(),
            data_type=st.integers(0, 14),
            dims=st.lists(st.integers(-1, 2**40), max_size=3),
            optional=st.booleans(),
        ),
        max_size=3,
    ),
    metric_tags=st.dictionaries(st.text(max_size=3), st.text(), max_size=2),
)


def test_values_of_all_kinds():
    parsed = text_format.parse("""
        # a comment, even "with quotes {"
        name: "a" 'b\\n\\x41\\101\\u00e9\\'' ; count: 0x10, less: -017
        ratio: 1.5e3f  tiny: .5 flag: true  kind: TYPE_FP32 # again
        dims: [ 1, -1 ] dims: 3  empty: []
        inner { a < b: 1 > } inner: { }  list: [ { x: 1 }, { x: 2 } ]
        [some.host/ext.name]: { y: inf }
    """)
    assert parsed == {
        "name": ["ab\nAAé'"],
        "count": [16],
        "less": [-15],
        "ratio": [1500.0],
        "tiny": [0.5],
        "flag": ["true"],
        "kind": ["TYPE_FP32"],
        "dims": [1, -1, 3],
        "empty": [],
        "inner": [{"a": [{"b": [1]}]}, {}],
        "list": [{"x": [1]}, {"x": [2]}],
        "[some.host/ext.name]": [{"y": ["inf"]}],
    }
    assert isinstance(parsed["kind"][0], Word)
    assert not isinstance(parsed["name"][0], Word)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name "a"', "line 1: expected : or"),
        ("a: 1\nb: }", "line 2: expected a value"),
        ("a {\n b: 1", "line 2: expected a field's name, got the end"),
        ("a: [1 2]", "expected , or ]"),
        ("a: [", "expected a value, got the end"),
        ('a: "open', "line 1: '\"open' is not understood"),
        ("a: 1x", "is not understood"),
        ("a: '\\xff'", "line 1: 'utf-8'"),
        ("}", "expected a field's name"),
        ("[a", "expected ], got the end"),
        ("a { " * 100, "more than 64 messages"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, words):
    with pytest.raises(ValueError, match="line") as raised:
        text_format.parse(text)
    assert words in str(raised.value)


@given(CONFIGS, st.booleans(), st.booleans())
def test_it_reads_what_protobuf_writes(config, as_one_line, as_utf8):
    written = reference.MessageToString(config, as_one_line=as_one_line, as_utf8=as_utf8)
    parsed = text_format.parse(written)
    assert parsed.get("name", [""]) == [config.name]
    assert parsed.get("max_batch_size", [0]) == [config.max_batch_size]
    tensors = parsed.get("input", [])
    assert [each.get("name", [""])[0] for each in tensors] == [each.name for each in config.input]
    assert [each.get("dims", []) for each in tensors] == [list(each.dims) for each in config.input]
    tags = {
        each.get("key", [""])[0]: each.get("value", [""])[0]
        for each in parsed.get("metric_tags", [])
    }
    assert tags == dict(config.metric_tags)


@given(st.text(alphabet="a1{}<>[]:,;\"'\\#\n x-.", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        parsed = text_format.parse(text)
    except ValueError as error:
        parsed = str(error)
    assert isinstance(parsed, dict) or parsed.startswith("line ")
