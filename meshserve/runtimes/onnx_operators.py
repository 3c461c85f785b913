"""The rules by which ONNX's operators keep rows apart, for each operator that is known to.

ONNX defines the operators: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from meshserve.runtimes import onnx_graph
from meshserve.runtimes import row_rules as rules

Arrays = Mapping[str, np.ndarray]

_SOFTMAX_BY_AXIS = 13
"""The first opset whose Softmax works along one axis."""

_LENGTHS, _STATES = 4, (5, 6)
"""Inputs of recurrent operators: lengths of sequences, and first states."""

ML_DOMAIN = "ai.onnx.ml"


@dataclass(slots=True)
class WalkedTensors:
    """What is known of the tensors that the operators judged so far take and give.

    `known` are the tensors with rows. `sizes` are those computed from shapes alone of which some
    elements follow the number of rows, by name with a mask of these elements; they may only be used
    as sizes.
    """

    opset: int
    known: dict[str, rules.Operand]
    values: tuple[Arrays, Arrays]
    sizes: dict[str, np.ndarray]

    def __init__(
        self, opset: int, known: dict[str, rules.Operand], values: tuple[Arrays, Arrays]
    ) -> None:
        self.opset = opset
        self.known = known
        self.values = values
        self.sizes = {}

    def shapes(self, name: str) -> rules.Shapes:
        """Return the tensor's shapes in both runs."""
        first, second = (run[name].shape for run in self.values)
        return first, second

    def operand(self, name: str) -> rules.Operand:
        """Return the tensor as rules take it. Raises RowsMix for sizes, which are no values."""
        if name in self.sizes:
            raise rules.RowsMix("a value depends on the number of rows")
        if name in self.known:
            return self.known[name]
        first = self.values[0].get(name)
        # Weights have no value in a run: they are the same in all of them.
        return rules.constant() if first is None else rules.constant(first.shape)


def check_rule(
    tensors: WalkedTensors,
    node: onnx_graph.Node,
    domain: str,
    outputs: Mapping[str, rules.Operand],
) -> None:
    """Check the operator by the rule of its kind. Raises RowsMix, also if it has none."""
    check = _Check(tensors, node, next(iter(outputs.values())))
    if domain == ML_DOMAIN:
        _check_row_wise(check)
    elif node.kind in _ELEMENTWISE:
        rules.elementwise(check.inputs(), check.output)
    elif node.kind in _REGROUPING:
        rules.regrouped(check.input(0), check.output)
    elif node.kind in _BATCH_FIRST:
        if node.kind == "MaxPool" and len(outputs) > 1:
            raise rules.RowsMix("its second output numbers the elements of all rows")
        rules.at_axis(check.input(0), 0)
        rules.constants(check.inputs()[1:])
    elif node.kind.startswith("Reduce"):
        _check_reduction(check)
    else:
        _RULES.get(node.kind, _has_no_rule)(check)


@dataclass(frozen=True, slots=True)
class _Check:
    """One operator, with what its rule needs of it. `output` is its first output."""

    tensors: WalkedTensors
    node: onnx_graph.Node
    output: rules.Operand

    def input(self, position: int) -> rules.Operand:
        return self.tensors.operand(self.node.inputs[position])

    def inputs(self) -> list[rules.Operand]:
        return [self.tensors.operand(name) for name in self.node.inputs if name]

    def number(self, name: str, default: int) -> int:
        value = self.node.attributes.get(name, default)
        if not isinstance(value, int):
            raise rules.RowsMix(f"its attribute {name} is not a number")
        return value

    def has_input(self, position: int) -> bool:
        return len(self.node.inputs) > position and bool(self.node.inputs[position])

    def axes(self, position: int) -> list[int] | None:
        """Return the axes in the attribute, or in a constant input; None if there are none."""
        listed = self.node.attributes.get("axes")
        if isinstance(listed, list):
            return listed
        if not self.has_input(position):
            return None
        return self.constant_numbers(position)

    def constant_numbers(self, position: int) -> list[int]:
        """Return the numbers of an input that is no computed one. Raises RowsMix."""
        name = self.node.inputs[position]
        value = self.tensors.values[0].get(name)
        if value is None or name in self.tensors.sizes or name in self.tensors.known:
            raise rules.RowsMix("its axes are not known")
        return [int(number) for number in value.ravel()]


def _check_row_wise(check: _Check) -> None:
    if check.node.kind not in _ML_ROW_WISE:
        _has_no_rule(check)
    if check.input(0).rank == 1 and check.node.kind not in _ML_ELEMENTWISE:
        raise rules.RowsMix("it takes one dimension for one row")
    rules.at_axis(check.input(0), 0)
    rules.constants(check.inputs()[1:])


def _check_reduction(check: _Check) -> None:
    axes = check.axes(1)
    if not axes and check.number("noop_with_empty_axes", 0):
        axes = []
    elif not axes:
        # No axes mean all of them, unless the attribute says otherwise.
        axes = None
    rules.along(check.input(0), axes)


def _check_axis(default: int) -> Callable[[_Check], None]:
    """Return the rule of operators along one axis, which is an attribute."""

    def check_axis(check: _Check) -> None:
        operands = check.inputs()
        axis = check.number("axis", default)
        for operand in operands:
            rules.along(operand, [axis])
        if len({operand.axis for operand in operands if operand.axis is not None}) > 1:
            raise rules.RowsMix("rows of its tensors lie along different dimensions")

    return check_axis


def _check_softmax(check: _Check) -> None:
    value = check.input(0)
    if check.tensors.opset >= _SOFTMAX_BY_AXIS:
        rules.along(value, [check.number("axis", -1)])
        return
    # Before opset 13 all dimensions from the axis on count as one.
    first = check.number("axis", 1) % value.rank
    rules.along(value, range(first, value.rank))


def _check_matmul(check: _Check) -> None:
    rules.matmul(check.input(0), check.input(1))
    rules.constants(check.inputs()[2:])


def _check_gemm(check: _Check) -> None:
    left, right = check.input(0), check.input(1)
    if left.axis is not None and left.axis == (0 if check.number("transA", 0) else 1):
        raise rules.RowsMix("a product sums over the rows")
    if left.axis is not None and check.number("transA", 0):
        raise rules.RowsMix("a product turns the rows")
    rules.constants([right])
    if check.has_input(2):
        rules.elementwise([check.input(2)], check.output)


def _check_gather(check: _Check) -> None:
    value, index = check.input(0), check.input(1)
    # A table of weights may be read at any place, also at one that a row names.
    if value.axis is None:
        return
    rules.constants([index])
    rules.along(value, [check.number("axis", 0)])


def _check_gather_elements(check: _Check) -> None:
    value, index = check.input(0), check.input(1)
    rules.along(value, [check.number("axis", 0)])
    rules.along(index, [check.number("axis", 0) % max(index.rank, 1)])
    if index.axis is not None and value.axis != index.axis:
        # Of a table it takes elements of the table's row with the number of the request's.
        raise rules.RowsMix("it takes elements of other rows")


def _check_slice(check: _Check) -> None:
    value = check.inputs()[0]
    if "starts" in check.node.attributes:
        starts = check.node.attributes["starts"]
        axes = check.axes(3) or list(range(len(starts) if isinstance(starts, list) else 1))
    elif check.has_input(3):
        axes = check.axes(3) or []
    else:
        raise rules.RowsMix("it works along the rows")
    rules.along(value, axes)


def _check_same_size(check: _Check) -> None:
    rules.same_size(check.input(0), check.output)


def _check_transpose(check: _Check) -> None:
    # Any order of axes keeps rows whole, but `inputs` refuses sizes.
    check.inputs()


def _check_split(check: _Check) -> None:
    rules.along(check.input(0), [check.number("axis", 0)])


def _check_recurrent(check: _Check) -> None:
    """Check LSTM, GRU and RNN: rows are at axis 1, or at 0 with `layout` 1."""
    axis = 0 if check.number("layout", 0) else 1
    rules.at_axis(check.input(0), axis)
    rules.constants(check.input(position) for position in (1, 2))
    for position in range(3, len(check.node.inputs)):
        if check.has_input(position):
            state = check.input(position)
            if position == _LENGTHS:
                rules.at_axis(state, 0)
            elif position in _STATES:
                rules.at_axis(state, axis)
            else:
                rules.constants([state])


def _check_batch_normalization(check: _Check) -> None:
    if check.number("training_mode", 0):
        raise rules.RowsMix("it behaves as in training")
    rules.at_axis(check.input(0), 0)
    rules.constants(check.inputs()[1:])


def _check_layer_normalization(check: _Check) -> None:
    value = check.input(0)
    first = check.number("axis", -1) % value.rank
    rules.along(value, range(first, value.rank))
    rules.constants(check.inputs()[1:])


def _check_dropout(check: _Check) -> None:
    if check.has_input(2):
        raise rules.RowsMix("it behaves as in training")
    rules.elementwise([check.input(0)], check.output)


def _check_topk(check: _Check) -> None:
    rules.along(check.input(0), [check.number("axis", -1)])
    if check.has_input(1):
        rules.constants([check.input(1)])


def _check_cumulative(check: _Check) -> None:
    rules.along(check.input(0), check.constant_numbers(1))


def _check_triangle(check: _Check) -> None:
    rules.along(check.input(0), [-2, -1])
    rules.constants(check.inputs()[1:])


def _check_pad(check: _Check) -> None:
    """Check that nothing is added to the rows: one added and another taken away keep the number."""
    value = check.input(0)
    rules.same_size(value, check.output)
    listed = check.node.attributes.get("pads")
    pads = listed if isinstance(listed, list) else check.constant_numbers(1)
    axes = check.constant_numbers(3) if check.has_input(3) else list(range(value.rank))
    begins, ends = pads[: len(axes)], pads[len(axes) :]
    rules.along(
        value,
        [axis for axis, *both in zip(axes, begins, ends, strict=True) if any(both)],
    )


def _check_resize(check: _Check) -> None:
    rules.same_size(check.input(0), check.output)
    if check.node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise rules.RowsMix("it crops, perhaps along the rows")


def _check_quantization(check: _Check) -> None:
    rules.constants(check.inputs()[1:])
    rules.elementwise([check.input(0)], check.output)


def _check_quantized_matmul(check: _Check) -> None:
    values = check.inputs()
    # QLinearMatMul takes the scale and the zero point of a matrix behind it.
    weight = 3 if check.node.kind == "QLinearMatMul" else 1
    rules.matmul(values[0], values[weight])
    rules.constants(values[1:])


def _check_one_hot(check: _Check) -> None:
    rules.constants(check.inputs()[1:])


def _has_no_rule(_check: _Check) -> None:
    raise rules.RowsMix("it is not known to keep rows apart")


_ELEMENTWISE = rules.names_in(
    """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr
    BitwiseXor Cast CastLike Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater
    GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max
    Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign
    Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor
    """
)

_REGROUPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})

_BATCH_FIRST = rules.names_in(
    """
    Conv ConvTranspose ConvInteger QLinearConv AveragePool MaxPool LpPool GlobalAveragePool
    GlobalMaxPool GlobalLpPool InstanceNormalization GroupNormalization LRN SpaceToDepth
    DepthToSpace
    """
)
"""Operators that are defined for a batch in the first dimension; all but the values are weights."""

_ML_ROW_WISE = rules.names_in(
    """
    ArrayFeatureExtractor Binarizer Imputer LabelEncoder LinearClassifier LinearRegressor
    Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble
    TreeEnsembleClassifier TreeEnsembleRegressor
    """
)

_ML_ELEMENTWISE = frozenset({"Binarizer", "LabelEncoder", "OneHotEncoder"})

_RULES: dict[str, Callable[[_Check], None]] = {
    "ArgMax": _check_axis(0),
    "ArgMin": _check_axis(0),
    "BatchNormalization": _check_batch_normalization,
    "Concat": _check_axis(1),
    "CumSum": _check_cumulative,
    "DequantizeLinear": _check_quantization,
    "Dropout": _check_dropout,
    "Expand": _check_same_size,
    "GRU": _check_recurrent,
    "Gather": _check_gather,
    "GatherElements": _check_gather_elements,
    "Gemm": _check_gemm,
    "Hardmax": _check_softmax,
    "LSTM": _check_recurrent,
    "LayerNormalization": _check_layer_normalization,
    "LogSoftmax": _check_softmax,
    "LpNormalization": _check_axis(-1),
    "MatMul": _check_matmul,
    "MatMulInteger": _check_quantized_matmul,
    "OneHot": _check_one_hot,
    "Pad": _check_pad,
    "QLinearMatMul": _check_quantized_matmul,
    "QuantizeLinear": _check_quantization,
    "RNN": _check_recurrent,
    "Resize": _check_resize,
    "Slice": _check_slice,
    "Softmax": _check_softmax,
    "Split": _check_split,
    "Tile": _check_same_size,
    "TopK": _check_topk,
    "Transpose": _check_transpose,
    "Trilu": _check_triangle,
    "Upsample": _check_same_size,
}
