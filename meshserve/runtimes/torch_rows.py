"""Walks over the operators that a torch program calls, and finds those that may mix rows.

The program is run under a dispatch mode, which sees every ATen operator with its arguments, whether
TorchScript or `torch.export` wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshserve.runtimes import row_rules as rules


@dataclass(slots=True)
class _Call:
    """One call of an operator. Tensors in `arguments` and `results` are `_Tensor`s."""

    operator: Any
    arguments: dict[str, Any]
    results: list[_Tensor]


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of a run: `number` by the order of first appearance."""

    number: int
    shape: tuple[int, ...]


class _Recording:
    """The calls of one run, and the numbers of its tensors.

    `constants` are the tensors that no seen operator made, such as weights.
    """

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []
        self.calls: list[_Call] = []
        self.constants: dict[int, Any] = {}

    def tensor(self, value: Any) -> _Tensor:
        """Return the tensor's number and shape; it stays alive, so its identity stays its own."""
        number = self._numbers.setdefault(id(value), len(self._numbers))
        self._kept.append(value)
        return _Tensor(number, tuple(value.shape))

    def describe(self, value: Any, *, is_result: bool = False) -> Any:
        """Return an argument or a result with `_Tensor`s in the place of tensors."""
        if isinstance(value, self._torch.Tensor):
            if not is_result and id(value) not in self._numbers:
                self.constants[len(self._numbers)] = value
            return self.tensor(value)
        if isinstance(value, (list, tuple)):
            return [self.describe(element, is_result=is_result) for element in value]
        return value

    def record(self, operator: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Call the operator and keep what it took and gave."""
        parameters = operator._schema.arguments  # noqa: SLF001 the only description of operators
        # TorchScript passes plain numbers where operators take tensors.
        args = [
            self._torch.tensor(value)
            if isinstance(value, (int, float)) and str(parameter.type) == "Tensor"
            else value
            for value, parameter in zip(args, parameters, strict=False)
        ]
        arguments = {parameter.name: parameter.default_value for parameter in parameters}
        arguments |= zip([parameter.name for parameter in parameters], args, strict=False)
        described = {
            name: self.describe(value) for name, value in (arguments | dict(keywords)).items()
        }
        result = operator(*args, **keywords)
        self.calls.append(
            _Call(operator, described, list(tensors_in(self.describe(result, is_result=True))))
        )
        return result


def tensors_in(value: Any) -> Sequence[_Tensor]:
    """Return the tensors of an argument, in their order."""
    if isinstance(value, _Tensor):
        return [value]
    if isinstance(value, list):
        return [tensor for element in value for tensor in tensors_in(element)]
    return []


def walk(
    torch: Any,
    call: Callable[..., Any],
    feeds: tuple[Sequence[Any], Sequence[Any]],
    name_outputs: Callable[[Any], Mapping[str, Any]],
) -> None:
    """Raise RowsMix unless the operators that `call` runs keep rows apart.

    `feeds` are its tensors with 3 and with 5 rows.
    """
    runs, inputs, outputs, constants = [], [], [], []
    for tensors in feeds:
        recording = _Recording(torch)
        inputs.append([recording.tensor(tensor) for tensor in tensors])
        with torch.inference_mode(), _mode(torch, recording):
            named = name_outputs(call(*tensors))
        outputs.append({name: recording.describe(value) for name, value in named.items()})
        runs.append(recording.calls)
        constants.append(recording.constants)
    if [one.operator for one in runs[0]] != [one.operator for one in runs[1]]:
        raise rules.RowsMix("the operators depend on the number of rows")
    sizes = _differing(torch, constants[0], constants[1])
    known = {
        one.number: rules.rows_of((one.shape, other.shape))
        for one, other in zip(*inputs, strict=True)
    }
    for calls in zip(*runs, strict=True):
        _judge(known, sizes, calls)
    for name, value in outputs[0].items():
        rules.check_output(name, known.get(value.number) or rules.constant(value.shape))


def _differing(torch: Any, first: Mapping[int, Any], second: Mapping[int, Any]) -> set[int]:
    """Return the tensors that no operator made and that differ between the runs: sizes."""
    if first.keys() != second.keys():
        raise rules.RowsMix("the operators depend on the number of rows")
    return {
        number
        for number, tensor in first.items()
        if tensor is not second[number]
        and not (tensor.shape == second[number].shape and torch.equal(tensor, second[number]))
    }


def check_control_flow(torch: Any, module: Any) -> None:
    """Raise RowsMix if TorchScript may take another way for another number of rows.

    The walk sees one way only. A branch on ranks, on constants or on missing tensors takes the
    same one for any number of rows.
    """
    if not isinstance(module, torch.jit.ScriptModule):
        return
    graph = torch.jit.freeze(module).graph
    for kind in ("prim::Loop", "aten::len"):
        if graph.findAllNodes(kind, recurse=True):
            raise rules.RowsMix(f"{kind.partition('::')[2]}: it may depend on the number of rows")
    for node in graph.findAllNodes("prim::If", recurse=True):
        if not _is_fixed(next(node.inputs())):
            raise rules.RowsMix("if: its condition may depend on the rows or their number")


def _is_fixed(value: Any) -> bool:
    """Return whether a condition can't depend on the rows nor on their number."""
    node = value.node()
    if node.kind() in _FIXED_SOURCES:
        return True
    return node.kind() in _FIXED_OPERATORS and all(map(_is_fixed, node.inputs()))


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FIXED_SOURCES = frozenset({"prim::Constant", "prim::GetAttr", "aten::dim", "prim::dtype"})

_FIXED_OPERATORS = _names(
    """
    aten::__is__ aten::__isnot__ aten::__not__ aten::__and__ aten::__or__ aten::eq aten::ne
    aten::lt aten::le aten::gt aten::ge aten::__contains__ aten::add aten::sub
    prim::ListConstruct aten::Bool
    """
)


def _mode(torch: Any, recording: _Recording) -> Any:
    class Mode(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[misc] # noqa: SLF001
        def __torch_dispatch__(
            self, operator: Any, _types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return recording.record(operator, args, kwargs or {})

    return Mode()


Operands = dict[int, rules.Operand]


def _judge(known: Operands, sizes: set[int], calls: tuple[_Call, _Call]) -> None:
    """Check one operator, and add what it returns to `known`. Raises RowsMix."""
    first, second = calls
    name = str(first.operator).split(".")[1]
    try:
        _Step(known, sizes, first, second, name).check()
    except rules.RowsMix as mix:
        raise rules.RowsMix(f"{name}: {mix}") from None


class _Step:
    """One operator in both runs, with the operands that it takes and gives.

    `sizes` are tensors that follow the number of rows; they may only become numbers, which in turn
    may only be sizes.
    """

    def __init__(
        self, known: Operands, sizes: set[int], first: _Call, second: _Call, name: str
    ) -> None:
        self.known = known
        self.sizes = sizes
        self.first = first
        self.second = second
        self.is_in_place = first.operator._schema.is_mutable  # noqa: SLF001 as above
        self.name = name.removesuffix("_") if self.is_in_place else name

    def all_tensors(self, call: _Call) -> list[_Tensor]:
        return [tensor for value in call.arguments.values() for tensor in tensors_in(value)]

    def operand(self, tensor: _Tensor) -> rules.Operand:
        return self.known.get(tensor.number) or rules.constant(tensor.shape)

    def operands(self, argument: str) -> list[rules.Operand]:
        return [self.operand(tensor) for tensor in tensors_in(self.first.arguments.get(argument))]

    def one(self, *names: str) -> rules.Operand:
        for name in names:
            if self.operands(name):
                return self.operands(name)[0]
        raise rules.RowsMix("an argument is missing")

    def value(self, name: str) -> Any:
        return self.first.arguments.get(name)

    def inputs(self) -> list[rules.Operand]:
        return [self.operand(tensor) for tensor in self.all_tensors(self.first)]

    def check(self) -> None:
        inputs = self.inputs()
        results = list(zip(self.first.results, self.second.results, strict=True))
        has_rows = any(operand.axis is not None for operand in inputs)
        if any(tensor.number in self.sizes for tensor in self.all_tensors(self.first)):
            self._add_sizes(has_rows=has_rows)
            return
        self._check_arguments()
        if not results and has_rows and self.name not in _QUERIES:
            raise rules.RowsMix("a number is taken out of the rows")
        if not has_rows:
            self._add_constants(results)
            return
        if self.is_in_place and inputs[0].axis is None:
            raise rules.RowsMix("it changes a tensor that outlives the run")
        outputs = []
        for one, other in results:
            outputs.append(rules.rows_of((one.shape, other.shape)))
        if results:
            _check_rule(self, outputs)
        for (one, _), output in zip(results, outputs, strict=True):
            self.known[one.number] = output

    def _add_sizes(self, *, has_rows: bool) -> None:
        """Add what is computed from sizes alone, as traces do it for reshapes."""
        if has_rows or self.name not in _SIZE_OPERATORS:
            raise rules.RowsMix("a value depends on the number of rows")
        self.sizes.update(tensor.number for tensor in self.first.results)

    def _check_arguments(self) -> None:
        """Check that both runs gave the operator the same tensors and numbers."""
        if [tensor.number for tensor in self.all_tensors(self.first)] != [
            tensor.number for tensor in self.all_tensors(self.second)
        ]:
            raise rules.RowsMix("its arguments depend on the number of rows")
        if not self.is_whole_slice() and not self._has_equal_values():
            raise rules.RowsMix("a number in it depends on the number of rows")

    def _add_constants(self, results: list[tuple[_Tensor, _Tensor]]) -> None:
        """Add the results of an operator that took no rows."""
        for one, other in results:
            if one.shape != other.shape:
                if self.name not in _FACTORIES | {"expand", "repeat"}:
                    raise rules.RowsMix("a constant depends on the number of rows")
                self.known[one.number] = rules.rows_of((one.shape, other.shape))

    def _has_equal_values(self) -> bool:
        def plain(value: Any) -> Any:
            if isinstance(value, _Tensor):
                return None
            return [plain(element) for element in value] if isinstance(value, list) else value

        takes_sizes = self.name in _SIZED
        return all(
            plain(value) == plain(self.second.arguments[name])
            for name, value in self.first.arguments.items()
            if not (takes_sizes and name in _SIZES)
        )

    def is_whole_slice(self) -> bool:
        return (
            self.name == "slice"
            and self.value("start") in (None, 0)
            and self.value("step") == 1
            and all(
                call.results[0].shape == tensors_in(call.arguments["self"])[0].shape
                for call in (self.first, self.second)
            )
        )


_SIZE_OPERATORS = frozenset(
    {"add", "sub", "mul", "div", "floor_divide", "item", "_local_scalar_dense", "equal", "to"}
)

_QUERIES = frozenset(
    {"size", "sym_size", "dim", "stride", "numel", "is_floating_point", "storage_offset"}
)

_FACTORIES = frozenset(("zeros", "ones", "full", "new_zeros", "new_ones", "new_full"))
"""Operators whose elements are all equal: they have rows where their shape has them."""

_REGROUPING = _names("view reshape _unsafe_view _reshape_alias unsqueeze squeeze flatten unflatten")
_SIZED = _REGROUPING | _FACTORIES | {"expand", "repeat"}
_SIZES = ("size", "shape", "sizes", "repeats")
"""Arguments of these operators that may follow the number of rows."""

_PERMUTING = _names("permute transpose t numpy_T movedim swapaxes swapdims")

_ELEMENTWISE = _names(
    """
    add sub mul div rsub neg abs exp exp2 expm1 log log1p log2 log10 sqrt rsqrt sin cos tan tanh
    sinh cosh atan asin acos sigmoid relu relu6 leaky_relu elu selu celu gelu silu mish hardtanh
    hardsigmoid hardswish softplus log_sigmoid softsign tanhshrink clamp clamp_min clamp_max
    clip pow square reciprocal erf floor ceil round trunc frac sign where eq ne lt le gt ge
    logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not
    bitwise_xor maximum minimum fmod remainder floor_divide true_divide divide multiply subtract
    to _to_copy type_as clone contiguous detach alias lift_fresh lift_fresh_copy masked_fill
    nan_to_num isnan isinf isfinite zeros_like ones_like full_like addcmul addcdiv lerp
    threshold prelu copy fill expand_as atan2
    """
)

_ALONG_DIM = _names(
    """
    sum mean amax amin std var prod argmax argmin max min logsumexp softmax _softmax log_softmax
    _log_softmax cumsum cumprod sort argsort topk any all glu flip select narrow split chunk
    unsafe_split unsafe_chunk split_with_sizes unbind cat norm linalg_vector_norm slice
    """
)

_BATCH_FIRST = _names(
    """
    conv1d conv2d conv3d convolution _convolution conv_transpose1d conv_transpose2d
    conv_transpose3d avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d
    max_pool2d_with_indices max_pool3d_with_indices adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d _adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d
    instance_norm group_norm native_group_norm upsample_nearest1d upsample_nearest2d
    upsample_bilinear2d upsample_linear1d upsample_bicubic2d pixel_shuffle pixel_unshuffle
    reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
    _transformer_encoder_layer_fwd _native_multi_head_attention
    """
)
"""Operators that are defined for a batch in the first dimension; all but the values are weights."""

_DROPOUTS = frozenset({"dropout", "feature_dropout", "alpha_dropout"})

_KEEPING_SIZE = frozenset({"expand", "repeat", "constant_pad_nd", "pad"})

_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})


def _check_rule(step: _Step, outputs: list[rules.Operand]) -> None:
    """Check the operator by the rule of its kind. Raises RowsMix, also if it has none."""
    name, output = step.name, outputs[0]
    if name in _ELEMENTWISE:
        rules.elementwise(step.inputs(), output)
    elif name in _DROPOUTS:
        _check_not_training(step.value("train"))
        rules.elementwise(step.inputs(), output)
    elif name in _REGROUPING:
        rules.regrouped(step.one("self", "input"), output)
    elif name in _KEEPING_SIZE:
        rules.same_size(step.one("self"), output)
    elif name not in _PERMUTING:
        _find_rule(name)(step)


def _find_rule(name: str) -> Callable[[_Step], None]:
    for names, rule in _RULES_OF_KINDS.items():
        if name in names:
            return rule
    return _RULES.get(name, _has_no_rule)


def _check_along(step: _Step) -> None:
    others = step.operands("other")
    if others:
        # max and min of two tensors.
        rules.elementwise(
            step.inputs(),
            rules.rows_of((step.first.results[0].shape, step.second.results[0].shape)),
        )
        return
    if step.is_whole_slice():
        return
    dim = step.value("dim") if "dim" in step.first.arguments else step.value("dims")
    axes = [dim] if isinstance(dim, int) else dim or None
    values = step.inputs()
    for value in values:
        rules.along(value, axes)
    axis_places = {value.from_right for value in values if value.axis is not None}
    if len(axis_places) > 1:
        raise rules.RowsMix("rows of its tensors lie along different dimensions")


def _check_not_training(is_training: object) -> None:
    if is_training:
        raise rules.RowsMix("it behaves as in training")


def _check_batch_first(step: _Step) -> None:
    values = step.inputs()
    sources = 3 if step.name == "_native_multi_head_attention" else 1
    for value in values[:sources]:
        rules.at_axis(value, 0)
    rules.constants(values[sources:])
    if step.name in ("_native_multi_head_attention", "_transformer_encoder_layer_fwd"):
        _check_not_training(step.value("training"))


def _check_recurrent(step: _Step) -> None:
    """Check recurrent layers: time is along another axis than the rows, states have rows at 1."""
    if "batch_first" not in step.first.arguments:
        raise rules.RowsMix("packed sequences have no rows")
    rules.at_axis(step.one("input"), 0 if step.value("batch_first") else 1)
    for state in step.operands("hx"):
        rules.at_axis(state, 1)
    rules.constants(step.operands("params"))
    _check_not_training(step.value("train") and step.value("dropout"))


def _check_linear(step: _Step) -> None:
    if step.one("input").from_right == -1:
        raise rules.RowsMix("a product sums over the rows")
    rules.constants(step.inputs()[1:])


def _check_product(step: _Step) -> None:
    rules.matmul(step.one("self"), step.one("other", "mat2"))


def _check_added_product(step: _Step) -> None:
    left, right = step.one("mat1", "batch1"), step.one("mat2", "batch2")
    rules.matmul(left, right)
    added, result = step.one("self"), step.first.results[0]
    rules.elementwise([added], rules.rows_of((result.shape, step.second.results[0].shape)))


def _check_embedding(step: _Step) -> None:
    rules.constants([step.one("weight")])


def _check_batch_norm(step: _Step) -> None:
    _check_not_training(step.value("training"))
    rules.at_axis(step.one("input"), 0)
    rules.constants(step.inputs()[1:])


def _check_layer_norm(step: _Step) -> None:
    value = step.one("input")
    rules.along(value, range(-len(step.value("normalized_shape")), 0))
    rules.constants(step.inputs()[1:])


def _check_attention(step: _Step) -> None:
    """Check softmax(query · keyᵀ) · value, whose last two dimensions are positions and features."""
    operands = [step.one("query"), step.one("key"), step.one("value")]
    operands += step.operands("attn_mask")
    places = {operand.from_right for operand in operands if operand.axis is not None}
    if len(places) != 1 or max(places) > rules.LAST_OF_STACK:
        raise rules.RowsMix("it attends to other rows")
    if step.value("dropout_p"):
        raise rules.RowsMix("it behaves as in training")


def _check_gather(step: _Step) -> None:
    value, index = step.one("self"), step.one("index")
    rules.along(value, [step.value("dim")])
    rules.along(index, [step.value("dim")])
    if None not in (value.axis, index.axis) and value.axis != index.axis:
        raise rules.RowsMix("it takes elements of other rows")


def _check_stack(step: _Step) -> None:
    """Check that all tensors of a stack have their rows at the same axis."""
    if len({value.axis for value in step.inputs()}) > 1:
        raise rules.RowsMix("rows of its tensors lie along different dimensions")


def _check_one_hot(step: _Step) -> None:
    if step.value("num_classes") < 0:
        raise rules.RowsMix("the number of classes depends on all rows")


def _has_no_rule(_step: _Step) -> None:
    raise rules.RowsMix("it is not known to keep rows apart")


_RULES_OF_KINDS: dict[frozenset[str], Callable[[_Step], None]] = {
    _ALONG_DIM: _check_along,
    _BATCH_FIRST: _check_batch_first,
    _RECURRENT: _check_recurrent,
}

_RULES: dict[str, Callable[[_Step], None]] = {
    "linear": _check_linear,
    "matmul": _check_product,
    "mm": _check_product,
    "bmm": _check_product,
    "addmm": _check_added_product,
    "baddbmm": _check_added_product,
    "embedding": _check_embedding,
    "batch_norm": _check_batch_norm,
    "_native_batch_norm_legit_no_training": _check_batch_norm,
    "layer_norm": _check_layer_norm,
    "native_layer_norm": _check_layer_norm,
    "scaled_dot_product_attention": _check_attention,
    "gather": _check_gather,
    "stack": _check_stack,
    "one_hot": _check_one_hot,
}
