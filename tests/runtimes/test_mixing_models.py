"""ONNX models whose rows meet, some only when a row is above a million: none may be joined.

A watch over joined runs would see such a row after thousands of requests, or never.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from meshserve.runtimes import runtime_lookup
from tests.runtimes import contract

HEAD = '<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3, "com.microsoft": 1, "my": 1]>'
NUMBERS = {
    "zero": "int64[1] {0}",
    "one": "int64[1] {1}",
    "minus": "int64[1] {-1}",
    "first": "int64 {0}",
    "big": "float {1000000.0}",
    "two": "float {2.0}",
    "byte": "uint8 {0}",
    "four": "int64[2] {-1, 4}",
    "flat": "int64[2] {1, -1}",
    "rows": "int64[3] {1, 1, -1}",
    "scale": "float[1] {1.0}",
    "scales": "float[4] {1.0, 1.0, 1.0, 1.0}",
}
DOUBLE = "c = Greater(r, big) d = Mul(x, two) y = Where(c, d, x)"

RARE = {
    "largest of all": f"r = ReduceMax<keepdims=0>(x) {DOUBLE}",
    "largest by one axis after another": f"t = Transpose(x) a = ReduceMax<axes=[1]>(t) "
    f"r = ReduceMax<axes=[0]>(a) {DOUBLE}",
    "largest of a flat reshape": f"f = Reshape(x, minus) r = ReduceMax<axes=[0]>(f) {DOUBLE}",
    "first of a sorted column": f"s, i = TopK<axis=0>(x, one) r = ReduceMax<axes=[1]>(s) {DOUBLE}",
    "a branch": "r = ReduceMax<keepdims=0>(x) c = Greater(r, big) y = If(c)"
    "<then_branch = t () => (float[n,4] p) { p = Mul(x, two) },"
    " else_branch = e () => (float[n,4] q) { q = Identity(x) }>",
    "a product with ones": "s = Shape(x) n = Gather(s, zero) k = Concat<axis=0>(one, n) "
    "o = ConstantOfShape<value = float[1] {1.0}>(k) g = Greater(x, big) f = Cast<to=1>(g) "
    "m = MatMul(o, f) y = Add(x, m)",
    "a count of indices": "g = Greater(x, big) i = NonZero(g) s = Shape(i) k = Gather(s, one) "
    "f = Cast<to=1>(k) y = Add(x, f)",
}
"""Rows meet if one has a number above a million."""

MIXING = {
    "largest by column": "v, i = TopK<axis=0>(x, one) y = Add(x, v)",
    "running sum": "y = CumSum(x, first)",
    "running sum, turned": "t = Transpose(x) o = Constant<value = int64 {1}>() "
    "c = CumSum<reverse=1>(t, o) y = Transpose(c)",
    "einsum": 'e = Einsum<equation="bi,ci->bc">(x, x) y = MatMul(e, x)',
    "first row": "a = Gather<axis=0>(x, zero) y = Sub(x, a)",
    "first row, spread": "a = Gather<axis=0>(x, zero) s = Shape(x) y = Expand(a, s)",
    "places that rows name": "i = Cast<to=7>(x) m = ReduceMin<axes=[1], keepdims=0>(i) "
    "a = Abs(m) o = Constant<value = int64 {1}>() z = Mod(a, o) y = Gather<axis=0>(x, z)",
    "elements that rows name": "i = Cast<to=7>(x) a = Abs(i) o = Constant<value = int64 {1}>() "
    "z = Mod(a, o) y = GatherElements<axis=0>(x, z)",
    "turned order": "e = Constant<value = int64[1] {-9223372036854775807}>() "
    "y = Slice(x, minus, e, zero, minus)",
    "shifted by one": "p = Slice(x, zero, minus, zero) "
    "b = Constant<value = int64[4] {1, 0, 0, 0}>()"
    " y = Pad(p, b)",
    "unique": "f = Reshape(x, minus) u = Unique<sorted=1>(f) r = ReduceSum<keepdims=0>(u) "
    "y = Add(x, r)",
    "dynamic quantization": "q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z)",
    "own quantization": "m = ReduceMax<keepdims=0>(x) s = Div(m, two) "
    "q = QuantizeLinear(x, s, byte) y = DequantizeLinear(q, s, byte)",
    "layer normalization": "y = LayerNormalization<axis=0>(x, scale)",
    "instance normalization": "f = Reshape(x, rows) i = InstanceNormalization(f, scale, scale) "
    "y = Reshape(i, four)",
    "batch normalization of columns": "t = Transpose(x) u = Unsqueeze(t, zero) "
    "i = InstanceNormalization(u, scales, scales) q = Squeeze(i, zero) y = Transpose(q)",
    "norm": "y = LpNormalization<axis=0>(x)",
    "norm, turned": "t = Transpose(x) l = LpNormalization<axis=-1>(t) y = Transpose(l)",
    "softmax, turned": "t = Transpose(x) s = Softmax<axis=-1>(t) y = Transpose(s)",
    "softmax, folded": "f = Reshape(x, flat) s = Softmax<axis=1>(f) y = Reshape(s, four)",
    "resized rows": "s = Constant<value = float[2] {2.0, 1.0}>() r = Resize(x, , s) "
    "h = Constant<value = float[2] {0.5, 1.0}>() y = Resize(r, , h)",
    "mean of columns": "m = ReduceMean<axes=[0], keepdims=1>(x) y = Sub(x, m)",
    "axes that are computed": "s = Shape(x) r = Shape(s) a = Sub(r, r) m = ReduceSum(x, a) "
    "y = Add(x, m)",
    "number of elements": "s = Size(x) f = Cast<to=1>(s) y = Add(x, f)",
    "rows by 64": "s = Shape(x) n = Gather(s, zero) k = Constant<value = int64[1] {64}>() "
    "d = Div(n, k) f = Cast<to=1>(d) y = Add(x, f)",
    "scattered": "i = Constant<value = int64[1,4] {0, 0, 0, 0}>() "
    "v = Constant<value = float[1,4] {9.0, 9.0, 9.0, 9.0}>() y = ScatterElements<axis=0>(x, i, v)",
    "pool over rows": "t = Transpose(x) u = Unsqueeze(t, zero) "
    "p = MaxPool<kernel_shape=[3], pads=[1, 1]>(u) q = Squeeze(p, zero) y = Transpose(q)",
    "scan": "f, y = Scan<num_scan_inputs=1, body = b (float[4] s, float[4] r) => "
    "(float[4] so, float[4] yo) { so = Add(s, r) yo = Identity(so) }>(scales, x)",
    "normalizer": 'f = Reshape(x, minus) q = ai.onnx.ml.Normalizer<norm="MAX">(f) '
    "y = Reshape(q, four)",
    "of another library": "y = com.microsoft.Gelu(x)",
    "random": "r = RandomNormalLike(x) y = Add(x, r)",
}

APART = {
    "product": "w = Transpose(m) h = MatMul(x, w) r = Relu(h) y = Softmax<axis=-1>(r)",
    "largest of each row": "r = ReduceMax<axes=[1], keepdims=1>(x) "
    "c = Greater(r, big) d = Mul(x, two) y = Where(c, d, x)",
    "halves of rows": "b = Constant<value = int64[2] {-1, 2}>() f = Reshape(x, b) "
    "s = Softmax<axis=1>(f) y = Reshape(s, four)",
}

MATRIX = "m = Constant<value = float[2,4] {1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0}>()"


def save(folder: Path, body: str, functions: str = "") -> Path:
    """Save the model of these operators; numbers that it does not name are left out."""
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    numbers = [f"{name} = Constant<value = {NUMBERS[name]}>()" for name in NUMBERS if name in words]
    lines = "\n".join([*numbers, *([MATRIX] if "Transpose(m)" in body else []), body])
    text = f"{HEAD}\ng (float[n,4] x) => (float[n,k] y) {{\n{lines}\n}}\n{functions}"
    onnx.save(onnx.parser.parse_model(text), folder / "model.onnx")
    return folder


def mixing(folder: Path) -> str | None:
    """Return why the model's requests are not joined, as a worker finds it."""
    loaded, artifact, spec = contract.load(folder), contract.artifact(folder), contract.spec()
    if not loaded.signature.has_batch_dimension:
        return "its first dimension is no batch"
    return runtime_lookup.find(spec, artifact).find_row_mixing(loaded, artifact, spec)


def answers(folder: Path, rows: np.ndarray) -> np.ndarray:
    """Return what the library alone answers, of shape [rows, columns]."""
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    return np.asarray(session.run(None, {"x": rows})[0])


@pytest.mark.parametrize("name", RARE)
def test_a_condition_over_all_rows_is_found_before_it_is_ever_true(
    tmp_path: Path, name: str
) -> None:
    save(tmp_path, RARE[name])
    rows = np.ones((3, 4), np.float32)
    apart = np.concatenate([answers(tmp_path, rows[:1])] * 3)
    assert np.array_equal(answers(tmp_path, rows), apart)
    rows[1, 1] = 3e6
    assert not np.array_equal(answers(tmp_path, rows)[:1], apart[:1])
    assert mixing(tmp_path)


@pytest.mark.parametrize("name", MIXING)
def test_no_operator_may_mix_rows(tmp_path: Path, name: str) -> None:
    assert mixing(save(tmp_path, MIXING[name]))


def test_a_function_of_the_file_is_not_looked_into(tmp_path: Path) -> None:
    function = '<domain: "my", opset_import: ["": 17]> f (a) => (b) { b = Softmax<axis=0>(a) }'
    assert mixing(save(tmp_path, "y = my.f(x)", function))


@pytest.mark.parametrize("name", APART)
def test_models_that_keep_rows_apart_are_joined(tmp_path: Path, name: str) -> None:
    assert mixing(save(tmp_path, APART[name])) is None
