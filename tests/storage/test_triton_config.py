from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.values import model
from meshserve.protocol.pb import model_config_pb2
from meshserve.storage import model_metadata, triton_config

CONFIG = """
name: "digits"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 1, 8, 8 ] },
  { name: "t" data_type: TYPE_STRING dims: 1 }
]
output { name: "y" data_type: 3 dims: [ -1 ] label_filename: "labels.txt" }
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
default_model_filename: "digits.onnx"
parameters: { key: "unknown" value: { string_value: "yes" } }
"""


def test_a_whole_configuration() -> None:
    read = triton_config.read(CONFIG)
    assert json.loads(read.config)["input"][0] == {
        "name": "x",
        "data_type": "TYPE_FP32",
        "format": "FORMAT_NCHW",
        "dims": ["1", "8", "8"],
    }
    assert replace(read, config="") == model_metadata.ModelDeclaration(
        name="digits",
        runtime="onnx",
        inputs=(
            model.TensorSpec("x", "FP32", (-1, 1, 8, 8)),
            model.TensorSpec("t", "BYTES", (-1, 1)),
        ),
        outputs=(model.TensorSpec("y", "UINT16", (-1, -1)),),
        max_batch_size=8,
        batching=True,
        options={"file": "digits.onnx"},
        label_files={"y": "labels.txt"},
    )


@pytest.mark.parametrize(
    ("text", "rows", "batching", "shape"),
    [
        ("", None, False, (4,)),
        ("dynamic_batching {}", None, False, (4,)),
        ("max_batch_size: 0", None, False, (4,)),
        ("max_batch_size: 2", 2, False, (-1, 4)),
        ("max_batch_size: 2 dynamic_batching { }", 2, True, (-1, 4)),
    ],
)
def test_batches(text: str, rows: int | None, batching: bool, shape: tuple[int, ...]) -> None:
    read = triton_config.read(text + ' input { name: "x" data_type: TYPE_BF16 dims: 4 }')
    assert (read.max_batch_size, read.batching, read.inputs) == (
        rows,
        batching,
        (model.TensorSpec("x", "BF16", shape),),
    )


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("", model_metadata.VersionPolicy()),
        ("version_policy: { all { } }", model_metadata.VersionPolicy()),
        ("version_policy { latest { } }", model_metadata.VersionPolicy(latest=1)),
        ("version_policy: { latest: { num_versions: 2 } }", model_metadata.VersionPolicy(latest=2)),
        (
            "version_policy: { specific: { versions: [ 1, 3 ] } }",
            model_metadata.VersionPolicy(listed=frozenset(("1", "3"))),
        ),
    ],
)
def test_version_policies(text: str, versions: model_metadata.VersionPolicy) -> None:
    assert triton_config.read(text).versions == versions


@pytest.mark.parametrize(
    ("text", "runtime"),
    [
        ('backend: "pytorch" platform: "x"', "torch"),
        ('platform: "tensorrt_plan"', "tensorrt_plan"),
        ('backend: "fil"', ""),
        ("", ""),
    ],
)
def test_runtimes(text: str, runtime: str) -> None:
    assert triton_config.read(text).runtime == runtime


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('platform: "ensemble"', "ensembles"),
        ("ensemble_scheduling { }", "ensembles"),
        ("max_batch_size: -1", "max_batch_size: expected a whole number"),
        ("name: 1", "line 1: .*Expected string"),
        ("input: 1", r"line 1: .*Expected \"{\""),
        ('input { name: "x" dims: 1 }', "is not a datatype"),
        ('input { name: "x" data_type: 99 dims: 1 }', "is not a datatype"),
        ('input { name: "x" data_type: TYPE_FP32 dims: "4" }', "line 1: .*integer"),
        ('input { name: "x" data_type: TYPE_FP32 dims: -4 }', "is not a shape"),
        ("\n\ninput { data_type: TYPE_FP33 }", "line 3: .*no value named TYPE_FP33"),
        ("name: {", "line 1: .*Expected string"),
        ('name "a"', 'line 1: .*Expected ":"'),
        ("a {\n b: 1", "line 2: .*Expected identifier"),
        ("a: [1 2]", 'line 1: .*Expected ","'),
        ('a: "open', "Invalid field value"),
        (r"name: '\xff'", "line 1: .*utf-8"),
        ("}", "line 1: .*Expected identifier"),
        ("a { " * 10_000, "too many messages"),
    ],
)
def test_wrong_configurations_say_why(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        triton_config.read(text)


def test_unknown_fields_are_ignored() -> None:
    text = """
        # a comment, even "with quotes {"
        name: 'a' "b\\n\\x41\\101\\u00e9" ; new_number: 0x10, new_ratio: 1.5e3f  new_kind: KIND_NEW
        new_list: [ { x: 1 }, { x: [ 2, -017 ] } ] new_message { a < b: 1 > }
    """
    assert replace(triton_config.read(text), config="") == model_metadata.ModelDeclaration(
        name="ab\nAAé", batching=False
    )


CONFIGS = st.builds(
    model_config_pb2.ModelConfig,
    name=st.text(),
    max_batch_size=st.integers(1, 2**31 - 1),
    input=st.lists(
        st.builds(
            model_config_pb2.ModelInput,
            name=st.text(min_size=1),
            data_type=st.integers(1, 14),
            dims=st.lists(st.integers(-1, 2**40), max_size=3),
            optional=st.booleans(),
        ),
        max_size=3,
    ),
    metric_tags=st.dictionaries(st.text(max_size=3), st.text(), max_size=2),
)


@given(CONFIGS, st.booleans(), st.booleans())
def test_it_reads_what_protobuf_writes(
    config: model_config_pb2.ModelConfig, as_one_line: bool, as_utf8: bool
) -> None:
    written = text_format.MessageToString(config, as_one_line=as_one_line, as_utf8=as_utf8)
    read = triton_config.read(written)
    assert (read.name, read.max_batch_size) == (config.name, config.max_batch_size)
    assert [(spec.name, list(spec.shape)) for spec in read.inputs] == [
        (tensor.name, [-1, *tensor.dims]) for tensor in config.input
    ]


@given(st.text(alphabet="a1{}<>[]:,;\"'\\#\n x-.", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        triton_config.read(text)


def test_datatypes_are_those_of_the_protocol() -> None:
    names = {name.removeprefix("TYPE_") for name in dict(model_config_pb2.DataType.items())}
    assert names - {"INVALID", "STRING"} | {"BYTES"} == model_metadata.DATATYPES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sequence_batching { }", "sequence_batching is not offered"),
        ("model_transaction_policy { decoupled: true }", "decoupled"),
        ("batch_input { kind: BATCH_ELEMENT_COUNT }", "ragged"),
        ('input { name: "x" data_type: TYPE_FP32 dims: 4 allow_ragged_batch: true }', "ragged"),
        ('input { name: "x" data_type: 11 dims: [2, 3] reshape { shape: 5 } }', "'x': dims"),
        ('input { name: "x" data_type: 11 dims: [-1, 3] reshape { shape: [3, -1] } }', "products"),
        ('output { name: "y" data_type: 11 dims: 2 label_filename: "../y" }', "model's folder"),
    ],
)
def test_a_field_that_would_change_answers_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        triton_config.read(text)


def test_a_configuration_in_json_reads_as_in_text() -> None:
    read = triton_config.read(CONFIG)
    assert triton_config.read_json(json.loads(read.config)) == read
    with pytest.raises(ValueError, match="max_batch_size"):
        triton_config.read_json({"max_batch_size": "many"})


def test_labels_are_the_lines_of_a_file_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\n\ndog\n")
    assert triton_config.read_labels(tmp_path, {"y": "names.txt"}) == {"y": ["cat", "", "dog"]}
    (tmp_path / "outside").symlink_to("/etc/passwd")
    for name in ("outside", "missing"):
        with pytest.raises(ValueError, match="there is no file"):
            triton_config.read_labels(tmp_path, {"y": name})
