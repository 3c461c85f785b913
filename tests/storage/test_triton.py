from __future__ import annotations

import pytest

from meshserve.core.values import model
from meshserve.protocol.pb import model_config_pb2
from meshserve.storage import model_metadata, triton

CONFIG = """
name: "digits"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 1, 8, 8 ] }, { name: "t" data_type: TYPE_STRING dims: 1 } ]
output { name: "y" data_type: 3 dims: [ -1 ] label_filename: "labels.txt" }
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
default_model_filename: "digits.onnx"
parameters: { key: "unknown" value: { string_value: "yes" } }
"""


def test_a_whole_configuration():
    assert triton.read(CONFIG) == model_metadata.ModelDescription(
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
    )


@pytest.mark.parametrize(
    ("text", "rows", "batching", "shape"),
    [
        ("", None, None, (4,)),
        ("dynamic_batching {}", None, None, (4,)),
        ("max_batch_size: 0", None, False, (4,)),
        ("max_batch_size: 2", 2, False, (-1, 4)),
        ("max_batch_size: 2 dynamic_batching { }", 2, True, (-1, 4)),
    ],
)
def test_batches(text, rows, batching, shape):
    read = triton.read(text + ' input { name: "x" data_type: TYPE_BF16 dims: 4 }')
    assert (read.max_batch_size, read.batching, read.inputs) == (
        rows,
        batching,
        (model.TensorSpec("x", "BF16", shape),),
    )


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("", model_metadata.Versions()),
        ("version_policy: { all { } }", model_metadata.Versions()),
        ("version_policy { latest { } }", model_metadata.Versions(latest=1)),
        ("version_policy: { latest: { num_versions: 2 } }", model_metadata.Versions(latest=2)),
        (
            "version_policy: { specific: { versions: [ 1, 3 ] } }",
            model_metadata.Versions(listed=frozenset(("1", "3"))),
        ),
    ],
)
def test_version_policies(text, versions):
    assert triton.read(text).versions == versions


@pytest.mark.parametrize(
    ("text", "runtime"),
    [
        ('backend: "pytorch" platform: "x"', "torch"),
        ('platform: "tensorrt_plan"', "tensorrt_plan"),
        ('backend: "fil"', ""),
        ("", ""),
    ],
)
def test_runtimes(text, runtime):
    assert triton.read(text).runtime == runtime


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('platform: "ensemble"', "ensembles"),
        ("ensemble_scheduling { }", "ensembles"),
        ("max_batch_size: -1", "max_batch_size: expected a whole number"),
        ("name: 1", "name: expected a text"),
        ("input: 1", "expected a message"),
        ('input { name: "x" dims: 1 }', "is not a datatype"),
        ('input { name: "x" data_type: 99 dims: 1 }', "is not a datatype"),
        ('input { name: "x" data_type: TYPE_FP32 dims: "4" }', "is not a shape"),
        ("name: {", "line 1"),
    ],
)
def test_what_can_not_be_served_is_said(text, words):
    with pytest.raises(ValueError, match=words):
        triton.read(text)


def test_data_types_have_protobufs_numbers():
    names = [
        name.removeprefix("TYPE_") for name in model_config_pb2.DataType.DESCRIPTOR.values_by_name
    ]
    assert [
        "INVALID",
        *("STRING" if word == "BYTES" else word for word in triton.TYPES[1:]),
    ] == names
