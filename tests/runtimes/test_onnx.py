from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from skl2onnx import to_onnx
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import onnx as onnx_runtime
from meshserve.runtimes import probing
from tests.runtimes import contract

DIGITS = load_digits(return_X_y=True)


def save(
    path: Path, nodes: Any, inputs: Any, outputs: Any, constants: Any = None, **saving: Any
) -> Path:
    """A graph of (op, inputs, outputs, attributes) between (name, type, shape) triples."""
    nodes = [
        helper.make_node(op, taken, given, **attributes) for op, taken, given, attributes in nodes
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(*triple) for triple in triples]
        for triples in (inputs, outputs)
    )
    weights = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, weights),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    proto.ir_version = 8
    onnx.save(proto, path, **saving)
    return path


def linear(path: Path, **saving: Any) -> Any:
    path.parent.mkdir(exist_ok=True)
    weights = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    nodes = [
        ("MatMul", ["x", "W"], ["scores"], {}),
        ("Softmax", ["scores"], ["p"], {}),
        ("ArgMax", ["p"], ["label"], {"axis": 1, "keepdims": 0}),
    ]
    given = [("p", TensorProto.FLOAT, ["n", 10]), ("label", TensorProto.INT64, ["n"])]
    return save(path, nodes, [("x", TensorProto.FLOAT, ["n", 64])], given, {"W": weights}, **saving)


def one_node(path: Path, op: Any, taken: Any, given: Any, **attributes: Any) -> Any:
    node = (op, [triple[0] for triple in taken], [triple[0] for triple in given], attributes)
    return save(path, [node], taken, given)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = linear(tmp_path_factory.mktemp("onnx") / "digits.onnx")
    rows = {"x": DIGITS[0][:5].astype(np.float32)}
    session = onnxruntime.InferenceSession(path)
    answers = dict(zip(["p", "label"], session.run(None, rows), strict=True))
    return contract.Sample("onnx", path, rows, answers, library="onnxruntime")


class TestContract(contract.RuntimeContract):
    """ONNX models."""


@pytest.mark.edge
def test_broken_files_are_refused(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx")
    counts = contract.survivors(contract.Sample("onnx", path, {}, {}))
    assert counts["refused"] >= 120


def test_weights_in_a_file_of_their_own_are_found_in_the_folder(tmp_path: Path) -> None:
    path = linear(
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    alone = linear(tmp_path / "alone.onnx")
    rows = {"x": DIGITS[0][:3].astype(np.float32)}
    given = contract.load(tmp_path).predict(rows, ["p"])["p"]
    assert (tmp_path / "weights.bin").exists()
    assert path.stat().st_size < 2000
    np.testing.assert_array_equal(given, contract.load(alone).predict(rows, ["p"])["p"])


def test_without_its_weights_file_it_is_refused(tmp_path: Path) -> None:
    linear(
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(errors.LoadFailed, match=r"ONNX Runtime can't load model\.onnx"):
        contract.load(tmp_path)


def classifier(path: Path, features: Any, labels: Any, **converting: Any) -> Any:
    fitted = LogisticRegression(max_iter=500).fit(features, labels)
    path.write_bytes(
        to_onnx(fitted, features[:1].astype(np.float32), **converting).SerializeToString()
    )
    return fitted


@pytest.mark.parametrize("names", [None, ("setosa", "versicolor", "virginica")])
def test_scores_by_class_become_a_tensor_in_the_order_of_the_classes(
    tmp_path: Path, names: Any
) -> None:
    features, labels = load_iris(return_X_y=True)
    fitted = classifier(
        tmp_path / "iris.onnx", features, labels if names is None else np.array(names)[labels]
    )
    loaded = contract.load(tmp_path / "iris.onnx")
    label, scores = loaded.signature.outputs
    assert (label.datatype, label.shape) == ("INT64" if names is None else "BYTES", (-1,))
    assert (scores.datatype, scores.shape) == ("FP32", (-1, 3))
    assert loaded.signature.has_batch_dimension
    given = loaded.predict({"X": features.astype(np.float32)}, ())
    np.testing.assert_allclose(given[scores.name], fitted.predict_proba(features), atol=1e-5)
    expected = fitted.predict(features)
    assert given[label.name].tolist() == (
        expected.tolist() if names is None else [text.encode() for text in expected]
    )
    assert loaded.predict({"X": np.empty((0, 4), np.float32)}, [scores.name])[
        scores.name
    ].shape == (0, 3)


def test_texts_go_in_and_out_as_bytes(tmp_path: Path) -> None:
    triple = TensorProto.STRING, ["n"]
    path = one_node(tmp_path / "m.onnx", "Identity", [("x", *triple)], [("y", *triple)])
    loaded = contract.load(path)
    assert loaded.signature.inputs[0].datatype == "BYTES"
    given = loaded.predict({"x": np.array(["é".encode(), b"b"], dtype=object)}, ())["y"]
    assert given.tolist() == ["é".encode(), b"b"]
    with pytest.raises(errors.InvalidRequest, match="UTF-8"):
        loaded.predict({"x": np.array([b"\xff"], dtype=object)}, ())


def test_a_graph_that_lies_about_its_outputs_is_corrected(tmp_path: Path) -> None:
    taken, given = [("x", TensorProto.FLOAT, ["n", 4])], [("y", TensorProto.FLOAT, ["n", 9])]
    loaded = contract.load(one_node(tmp_path / "m.onnx", "Identity", taken, given))
    assert loaded.signature.outputs[0].shape in ((-1, 4), (-1, -1))


def test_dimensions_that_depend_on_the_values_stay_free(tmp_path: Path) -> None:
    path = one_node(
        tmp_path / "m.onnx",
        "NonZero",
        [("x", TensorProto.FLOAT, ["n", 4])],
        [("y", TensorProto.INT64, [2, "found"])],
    )
    signature = contract.load(path).signature
    assert signature.outputs == (model.TensorSpec("y", "INT64", (2, -1)),)
    assert not signature.has_batch_dimension


@pytest.mark.parametrize(
    ("op", "shape", "attributes"),
    [
        ("Softmax", ["n", 4], {"axis": 0}),
        ("Transpose", ["n", "n"], {"perm": [1, 0]}),
        ("Identity", [1, 4], {}),
    ],
)
def test_rows_that_influence_each_other_or_are_fixed_are_no_batch(
    tmp_path: Path, op: Any, shape: tuple[int, ...], attributes: Any
) -> None:
    path = one_node(
        tmp_path / "m.onnx",
        op,
        [("x", TensorProto.FLOAT, shape)],
        [("y", TensorProto.FLOAT, shape)],
        **attributes,
    )
    assert not contract.load(path).signature.has_batch_dimension


def test_a_free_dimension_inside_follows_through(tmp_path: Path) -> None:
    path = one_node(
        tmp_path / "m.onnx",
        "Relu",
        [("x", TensorProto.FLOAT, ["n", "t", 2])],
        [("y", TensorProto.FLOAT, ["n", "t", 2])],
    )
    loaded = contract.load(path)
    assert loaded.signature.outputs[0].shape == (-1, -1, 2)
    assert loaded.signature.has_batch_dimension


def test_a_declaration_narrows_an_input_and_names_unknown_tensors_with_the_nearest(
    tmp_path: Path,
) -> None:
    path = linear(tmp_path / "m.onnx")
    fixed = model.TensorSpec("x", "FP32", (1, 64))
    loaded = contract.load(path, inputs=(fixed,))
    assert loaded.signature.inputs == (fixed,)
    assert not loaded.signature.has_batch_dimension
    with pytest.raises(
        errors.LoadFailed, match="'labels' does not exist in the model; did you mean 'label'"
    ):
        contract.load(path, outputs=(model.TensorSpec("labels", "INT64", (-1,)),))
    only_label = contract.load(path, outputs=(model.TensorSpec("label", "INT64", (-1,)),))
    assert list(only_label.predict(only_label.probe or {}, ())) == ["label"]


def test_types_that_can_t_be_sent_are_refused_by_name(tmp_path: Path) -> None:
    path = one_node(
        tmp_path / "b.onnx",
        "Cast",
        [("x", TensorProto.BFLOAT16, ["n"])],
        [("y", TensorProto.FLOAT, ["n"])],
        to=TensorProto.FLOAT,
    )
    with pytest.raises(errors.LoadFailed, match="input 'x' is tensor"):
        contract.load(path)
    path = tmp_path / "s.onnx"
    pieces = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [pieces],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    with pytest.raises(errors.LoadFailed, match="output 'y' is seq"):
        contract.load(path)


def test_values_that_the_graph_can_t_take_are_the_caller_s_fault(tmp_path: Path) -> None:
    taken = [("table", TensorProto.FLOAT, [3, 2]), ("rows", TensorProto.INT64, ["n"])]
    loaded = contract.load(
        one_node(tmp_path / "m.onnx", "Gather", taken, [("y", TensorProto.FLOAT, ["n", 2])])
    )
    with pytest.raises(errors.InvalidRequest, match="indices element out of data bounds"):
        loaded.predict({"table": np.zeros((3, 2), np.float32), "rows": np.array([7])}, ())


def ours(path: Path, **fields: Any) -> Any:
    """A model whose file nobody else can change."""
    return onnx_runtime.OnnxRuntime().load(
        replace(contract.artifact(path), is_cached=True), contract.spec(**fields), "cpu"
    )


def test_the_same_bytes_are_verified_once_and_models_alike_share_what_they_have_in_common(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = linear(tmp_path / "one.onnx")
    other = linear(
        tmp_path / "other" / "model.onnx",
        save_as_external_data=True,
        location="w",
        size_threshold=0,
    )
    first, alike = ours(path), ours(other.parent)
    assert alike.signature is first.signature
    assert alike.probe is first.probe
    monkeypatch.setattr(probing, "probe", None)
    assert ours(path).signature is first.signature
    with pytest.raises(TypeError):
        contract.load(path)


def test_the_same_bytes_declared_otherwise_are_verified_again(tmp_path: Path) -> None:
    path = linear(tmp_path / "one.onnx")
    whole = ours(path).signature
    narrow = model.TensorSpec("x", "FP32", (2, 64))
    assert ours(path, inputs=(narrow,)).signature.inputs == (narrow,)
    assert not ours(path, inputs=(narrow,)).signature.has_batch_dimension
    assert ours(path).signature == whole


@pytest.mark.parametrize(
    ("kind", "gates", "is_quantized"), [("LSTM", 4, False), ("GRU", 3, False), ("LSTM", 4, True)]
)
def test_an_empty_sequence_is_refused_where_it_would_end_the_process(
    tmp_path: Path, kind: str, gates: int, *, is_quantized: bool
) -> None:
    weights = {"W": np.ones((1, 4 * gates, 3)), "R": np.ones((1, 4 * gates, 4))}
    path = save(
        tmp_path / "m.onnx",
        [(kind, ["x", "W", "R"], ["y"], {"hidden_size": 4})],
        [("x", TensorProto.FLOAT, ["t", "n", 3])],
        [("y", TensorProto.FLOAT, None)],
        {name: array.astype(np.float32) for name, array in weights.items()},
    )
    if is_quantized:
        quantization.quantize_dynamic(path, path)
    loaded = contract.load(path)
    assert loaded.predict({"x": np.ones((2, 1, 3), np.float32)}, ())["y"].shape == (2, 1, 1, 4)
    for shape in ((2, 0, 3), (0, 1, 3)):
        with pytest.raises(errors.InvalidRequest, match="input 'x' is empty"):
            loaded.predict({"x": np.ones(shape, np.float32)}, ())


def test_an_input_that_is_an_initializer_too_may_be_left_out(tmp_path: Path) -> None:
    given = [("x", TensorProto.FLOAT, ["n"]), ("bias", TensorProto.FLOAT, [1])]
    answers = [("y", TensorProto.FLOAT, ["n"])]
    bias = {"bias": np.array([10], np.float32)}
    path = save(tmp_path / "m.onnx", [("Add", ["x", "bias"], ["y"], {})], given, answers, bias)
    x = np.array([1, 2], np.float32)
    plain = contract.load(path)
    assert [spec.name for spec in plain.signature.inputs] == ["x"]
    assert plain.predict({"x": x}, ())["y"].tolist() == [11, 12]
    declared = (model.TensorSpec("x", "FP32", (-1,)), model.TensorSpec("bias", "FP32", (1,)))
    loaded = contract.load(path, inputs=declared)
    assert loaded.signature.optional == {"bias"}
    assert loaded.predict({"x": x}, ())["y"].tolist() == [11, 12]
    assert loaded.predict({"x": x, "bias": np.ones(1, np.float32)}, ())["y"].tolist() == [2, 3]
