from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from meshserve.runtimes import onnx_graph
from tests.runtimes import onnx_files
from tests.runtimes.onnx_files import FLOAT


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    path = onnx_files.graph(
        tmp_path / "m.onnx",
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("ReduceSum", ["h", "axes"], ["y"], keepdims=0),
        ],
        [("x", FLOAT, ["n", 4])],
        [("y", FLOAT, ["n"])],
        {"w": onnx_files.weight(4, 100), "axes": np.array([-1])},
    )
    return path.read_bytes()


def test_operators_weights_outputs_and_opset_are_read(content: bytes) -> None:
    graph = onnx_graph.read(content)
    assert [(node.kind, node.inputs, node.outputs) for node in graph.nodes] == [
        ("MatMul", ["x", "w"], ["h"]),
        ("ReduceSum", ["h", "axes"], ["y"]),
    ]
    assert graph.nodes[1].attributes == {"keepdims": 0}
    assert (graph.weights, graph.outputs, graph.opset) == ({"w": 400, "axes": 1}, ["y"], 17)


def test_every_attribute_that_rules_need_is_read(tmp_path: Path) -> None:
    node = helper.make_node("N", [], ["y"], axis=-1, axes=[0, -2], mode="reflect", ratio=0.5)
    path = onnx_files.graph(tmp_path / "m.onnx", [node], [], [("y", FLOAT, [])])
    attributes = onnx_graph.read(path.read_bytes()).nodes[0].attributes
    assert attributes == {"axis": -1, "axes": [0, -2], "mode": "reflect", "ratio": None}


def test_inner_tensors_become_outputs(content: bytes) -> None:
    session = onnxruntime.InferenceSession(onnx_graph.with_outputs(content, ["h", "axes"]))
    inner, axes = session.run(["h", "axes"], {"x": np.ones((2, 4), np.float32)})
    assert (inner.shape, axes.tolist()) == ((2, 100), [-1])


@pytest.mark.parametrize("cut", [3, 10, 50])
def test_a_part_of_a_file_is_unreadable(content: bytes, cut: int) -> None:
    with pytest.raises(onnx_graph.Unreadable):
        onnx_graph.read(content[:-cut])


def test_what_hides_operators_is_unreadable(content: bytes) -> None:
    proto = onnx.load_from_string(content)
    proto.functions.add(name="f", domain="d")
    with pytest.raises(onnx_graph.Unreadable, match="functions"):
        onnx_graph.read(proto.SerializeToString())
    with pytest.raises(onnx_graph.Unreadable):
        onnx_graph.read(b"\x0f\x00")
