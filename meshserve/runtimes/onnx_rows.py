"""Walks over the operators of an ONNX graph, and finds those that may mix rows.

A copy of the model with every tensor as an output is run with 3 and with 5 rows; from the shapes
follow the batch axes, and each operator must obey a rule. ONNX defines the operators:
https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meshserve.runtimes import datatypes, onnx_graph, row_proof
from meshserve.runtimes import row_rules as rules

Arrays = Mapping[str, np.ndarray]

SIZE_MAX = 64 << 20
"""Bigger files are not walked: their second session would take as much memory as the first."""

SMALL_WEIGHT = 64
"""Weights of at most so many elements may be axes or sizes, so their values are looked at."""

_SOFTMAX_BY_AXIS = 13
"""The first opset whose Softmax works along one axis."""

_LENGTHS, _STATES = 4, (5, 6)
"""Inputs of recurrent operators: lengths of sequences, and first states."""

_DEFAULT_DOMAINS = ("", "ai.onnx")

_ML = "ai.onnx.ml"


def find_row_mixing(library: Any, file: Path, probe: Arrays) -> str | None:
    """Return None if the graph's operators keep rows apart, else which one may not.

    `probe` are inputs of one row that the model takes. The second session takes as much memory as
    the model itself until this returns.
    """
    if file.suffix == ".ort" or file.stat().st_size > SIZE_MAX:
        return "its graph is not read: it is an .ort file, or bigger than 64 MiB"
    content = file.read_bytes()
    try:
        graph = onnx_graph.read(content)
        names = _tensor_names(graph)
        session = _session(library, onnx_graph.with_outputs(content, names), file)
        _check_symbols(session, graph)
        feeds = tuple(row_proof.several_rows(probe, rows) for rows in rules.ROWS)
        first, second = (
            {
                name: value
                for name, value in zip(names, session.run(names, feed), strict=True)
                if isinstance(value, np.ndarray)
            }
            for feed in map(_with_texts, feeds)
        )
        walk(graph, (feeds[0], feeds[1]), (first, second))
    except (rules.RowsMix, onnx_graph.Unreadable) as reason:
        return str(reason)
    return None


def _tensor_names(graph: onnx_graph.Graph) -> list[str]:
    """Return all tensors that operators compute, and small weights, which may be axes or sizes."""
    computed = [name for node in graph.nodes for name in node.outputs if name]
    return computed + [name for name, count in graph.weights.items() if count <= SMALL_WEIGHT]


def _session(library: Any, content: bytes, file: Path) -> Any:
    chosen = library.SessionOptions()
    chosen.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
    chosen.intra_op_num_threads = 1
    chosen.enable_cpu_mem_arena = False
    chosen.log_severity_level = 4
    # Weights in files beside the model are not found from its bytes alone.
    chosen.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(file.parent)
    )
    return library.InferenceSession(content, chosen, providers=["CPUExecutionProvider"])


def _check_symbols(session: Any, graph: onnx_graph.Graph) -> None:
    """Raise RowsMix if first dimensions have names, but not one and the same."""
    nodes = [*session.get_inputs(), *session.get_outputs()]
    wanted = {*(node.name for node in session.get_inputs()), *graph.outputs}
    symbols = {
        node.shape[0]
        for node in nodes
        if node.name in wanted and node.shape and isinstance(node.shape[0], str)
    }
    named = {symbol for symbol in symbols if symbol and not symbol.startswith("unk__")}
    if len(named) > 1:
        raise rules.RowsMix(f"first dimensions differ by name: {', '.join(sorted(named))}")


def _with_texts(feed: Arrays) -> dict[str, np.ndarray]:
    return {
        name: datatypes.to_texts(array) if array.dtype.hasobject else array
        for name, array in feed.items()
    }


def walk(
    graph: onnx_graph.Graph, feeds: tuple[Arrays, Arrays], values: tuple[Arrays, Arrays]
) -> None:
    """Raise RowsMix unless the graph's operators keep rows apart.

    `feeds` are inputs with 3 and with 5 rows, `values` all tensors of these runs.
    """
    known = {name: rules.rows_of((feeds[0][name].shape, feeds[1][name].shape)) for name in feeds[0]}
    walker = _Walk(graph.opset, known, values)
    for node in graph.nodes:
        try:
            walker.add(node)
        except rules.RowsMix as mix:
            raise rules.RowsMix(f"{node.kind}: {mix}") from None
    for name in graph.outputs:
        rules.check_output(name, known.get(name) or rules.constant())


@dataclass(slots=True)
class _Walk:
    """The operators that were judged so far.

    `known` are the tensors with rows. `sizes` are those computed from shapes alone whose values
    follow the number of rows; they may only be used as sizes.
    """

    opset: int
    known: dict[str, rules.Operand]
    values: tuple[Arrays, Arrays]
    sizes: set[str]

    def __init__(
        self, opset: int, known: dict[str, rules.Operand], values: tuple[Arrays, Arrays]
    ) -> None:
        self.opset = opset
        self.known = known
        self.values = values
        self.sizes = set()

    def shapes(self, name: str) -> rules.Shapes:
        first, second = (run[name].shape for run in self.values)
        return first, second

    def operand(self, name: str) -> rules.Operand:
        if name in self.sizes:
            raise rules.RowsMix("a value depends on the number of rows")
        if name in self.known:
            return self.known[name]
        first = self.values[0].get(name)
        # Weights have no value in a run: they are the same in all of them.
        return rules.constant() if first is None else rules.constant(first.shape)

    def add(self, node: onnx_graph.Node) -> None:
        """Judge one operator. Raises RowsMix."""
        domain = "" if node.domain in _DEFAULT_DOMAINS else node.domain
        if domain not in ("", _ML) or node.kind in _NEVER:
            raise rules.RowsMix("it is not known to keep rows apart")
        if node.kind in ("Shape", "Size"):
            self._add_sizes(node)
            return
        names = [name for name in node.inputs if name]
        if not any(name in self.known for name in names):
            self._add_without_rows(node, names)
            return
        if node.kind in _TAKING_SIZES and any(name in self.known for name in names[1:]):
            raise rules.RowsMix("its sizes are computed from the rows")
        if node.kind == "ZipMap" and domain == _ML:
            rules.at_axis(self.known[names[0]], 0)
            self.known[node.outputs[0]] = rules.rows_of(((rules.ROWS[0],), (rules.ROWS[1],)))
            return
        outputs = {name: rules.rows_of(self.shapes(name)) for name in node.outputs if name}
        self._check(node, domain, outputs)
        self.known.update(outputs)

    def _add_sizes(self, node: onnx_graph.Node) -> None:
        for name in node.outputs:
            if not np.array_equal(self.values[0][name], self.values[1][name]):
                self.sizes.add(name)

    def _add_without_rows(self, node: onnx_graph.Node, names: Sequence[str]) -> None:
        """Add the outputs of an operator that takes constants, and sizes perhaps."""
        if not any(name in self.sizes for name in names):
            return
        is_filling = node.kind == "ConstantOfShape" or (
            node.kind in ("Expand", "Tile") and names[0] not in self.sizes
        )
        if not is_filling and node.kind not in _SIZE_OPERATORS:
            raise rules.RowsMix("a value depends on the number of rows")
        for name in filter(None, node.outputs):
            first, second = self.shapes(name)
            if is_filling and first != second:
                self.known[name] = rules.rows_of((first, second))
            elif not self._is_equal(name):
                self.sizes.add(name)

    def _is_equal(self, name: str) -> bool:
        first, second = self.values[0][name], self.values[1][name]
        return first.shape == second.shape and bool(np.array_equal(first, second))

    def _check(
        self, node: onnx_graph.Node, domain: str, outputs: Mapping[str, rules.Operand]
    ) -> None:
        check = _Check(self, node, next(iter(outputs.values())))
        if domain == _ML:
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

    walk: _Walk
    node: onnx_graph.Node
    output: rules.Operand

    def input(self, position: int) -> rules.Operand:
        return self.walk.operand(self.node.inputs[position])

    def inputs(self) -> list[rules.Operand]:
        return [self.walk.operand(name) for name in self.node.inputs if name]

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
        name = self.node.inputs[position]
        if name in self.walk.sizes or name in self.walk.known:
            raise rules.RowsMix("its axes are computed")
        value = self.walk.values[0].get(name)
        if value is None:
            raise rules.RowsMix("its axes are not known")
        return [int(axis) for axis in value.ravel()]


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
    if check.walk.opset >= _SOFTMAX_BY_AXIS:
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
    if value.axis is None:
        return
    rules.constants([index])
    rules.along(value, [check.number("axis", 0)])


def _check_gather_elements(check: _Check) -> None:
    value, index = check.input(0), check.input(1)
    rules.along(value, [check.number("axis", 0)])
    rules.along(index, [check.number("axis", 0) % max(index.rank, 1)])
    if None not in (value.axis, index.axis) and value.axis != index.axis:
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
    name = check.node.inputs[1]
    value = check.walk.values[0].get(name)
    if value is None or name in check.walk.known or name in check.walk.sizes:
        raise rules.RowsMix("its axis is not known")
    rules.along(check.input(0), [int(value)])


def _check_quantization(check: _Check) -> None:
    rules.constants(check.inputs()[1:])
    rules.elementwise([check.input(0)], check.output)


def _check_quantized_matmul(check: _Check) -> None:
    values = check.inputs()
    weight = 3 if check.node.kind == "QLinearMatMul" else 1
    rules.matmul(values[0], values[weight])
    rules.constants(values[1:])


def _check_one_hot(check: _Check) -> None:
    rules.constants(check.inputs()[1:])


def _has_no_rule(_check: _Check) -> None:
    raise rules.RowsMix("it is not known to keep rows apart")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEVER = _names("If Loop Scan SequenceMap RandomNormal RandomUniform Bernoulli Multinomial")

_TAKING_SIZES = _names("Reshape Expand Tile Slice Pad Resize Upsample Unsqueeze Squeeze")

_SIZE_OPERATORS = _names(
    """
    Gather Concat Slice Unsqueeze Squeeze Cast Add Sub Mul Div Identity Reshape Equal Where
    ReduceProd Neg Max Min Mod Floor Ceil
    """
)
"""Operators with which exporters compute shapes."""

_ELEMENTWISE = _names(
    """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr
    BitwiseXor Cast CastLike Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater
    GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max
    Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign
    Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor
    """
)

_REGROUPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})

_BATCH_FIRST = _names(
    """
    Conv ConvTranspose ConvInteger QLinearConv AveragePool MaxPool LpPool GlobalAveragePool
    GlobalMaxPool GlobalLpPool InstanceNormalization GroupNormalization LRN SpaceToDepth
    DepthToSpace
    """
)
"""Operators that are defined for a batch in the first dimension; all but the values are weights."""

_ML_ROW_WISE = _names(
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
    "Pad": _check_same_size,
    "QLinearMatMul": _check_quantized_matmul,
    "QuantizeLinear": _check_quantization,
    "RNN": _check_recurrent,
    "Resize": _check_same_size,
    "Slice": _check_slice,
    "Softmax": _check_softmax,
    "Split": _check_split,
    "Tile": _check_same_size,
    "TopK": _check_topk,
    "Transpose": _check_transpose,
    "Trilu": _check_same_size,
    "Upsample": _check_same_size,
}
