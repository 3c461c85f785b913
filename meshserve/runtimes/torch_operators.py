"""The rules by which torch's operators keep rows apart, for each operator that is known to.

An operator without a rule counts as one that may mix rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshserve.runtimes import row_rules as rules
from meshserve.runtimes import torch_calls

Operands = dict[int, rules.Operand]


class Step:
    """One operator in both runs, with the operands that it takes and gives.

    `sizes` are tensors that follow the number of rows; they may only become numbers, which in turn
    may only be sizes. `written` are the arguments that the operator changes.
    """

    def __init__(
        self,
        known: Operands,
        sizes: set[int],
        first: torch_calls.Call,
        second: torch_calls.Call,
        name: str,
    ) -> None:
        self.known = known
        self.sizes = sizes
        self.first = first
        self.second = second
        schema = first.operator._schema  # noqa: SLF001 the only description of operators
        self.is_in_place = schema.is_mutable
        self.written = [
            argument.name
            for argument in schema.arguments
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        # An operator like `relu_` obeys the rule of `relu`.
        self.name = name.removesuffix("_") if self.is_in_place else name

    def all_tensors(self, call: torch_calls.Call) -> list[torch_calls.SeenTensor]:
        """Return the tensors among the arguments of a call, in their order."""
        return [
            tensor for value in call.arguments.values() for tensor in torch_calls.tensors_in(value)
        ]

    def operand(self, tensor: torch_calls.SeenTensor) -> rules.Operand:
        """Return the tensor as rules take it."""
        return self.known.get(tensor.number) or rules.constant(tensor.shape)

    def operands(self, argument: str) -> list[rules.Operand]:
        """Return the tensors of an argument as rules take them; none if it is missing."""
        return [
            self.operand(tensor)
            for tensor in torch_calls.tensors_in(self.first.arguments.get(argument))
        ]

    def one(self, *names: str) -> rules.Operand:
        """Return the first tensor of the first of these arguments that is given. Raises RowsMix."""
        for name in names:
            if self.operands(name):
                return self.operands(name)[0]
        raise rules.RowsMix("an argument is missing")

    def value(self, name: str) -> Any:
        """Return an argument of the first run as it was given, or None."""
        return self.first.arguments.get(name)

    def inputs(self) -> list[rules.Operand]:
        """Return all tensors that the operator takes."""
        return [self.operand(tensor) for tensor in self.all_tensors(self.first)]

    def is_whole_slice(self) -> bool:
        """Return whether the operator is a slice that leaves nothing out."""
        return (
            self.name == "slice"
            and self.value("start") in (None, 0)
            and self.value("step") == 1
            and all(
                call.results[0].shape == torch_calls.tensors_in(call.arguments["self"])[0].shape
                for call in (self.first, self.second)
            )
        )


REGROUPING = rules.names_in(
    "view reshape _unsafe_view _reshape_alias unsqueeze squeeze flatten unflatten"
)

_PERMUTING = rules.names_in("permute transpose t numpy_T movedim swapaxes swapdims")

_ELEMENTWISE = rules.names_in(
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

_ALONG_DIM = rules.names_in(
    """
    sum mean amax amin std var prod argmax argmin max min logsumexp softmax _softmax log_softmax
    _log_softmax cumsum cumprod sort argsort topk any all glu flip select narrow split chunk
    unsafe_split unsafe_chunk split_with_sizes unbind cat norm linalg_vector_norm slice
    """
)

_BATCH_FIRST = rules.names_in(
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


def check_rule(step: Step, outputs: list[rules.Operand]) -> None:
    """Check the operator by the rule of its kind. Raises RowsMix, also if it has none."""
    name, output = step.name, outputs[0]
    # With a condition alone it is `nonzero`.
    if name == "where" and not step.operands("self"):
        raise rules.RowsMix("it numbers the rows")
    if name in _ELEMENTWISE:
        rules.elementwise(step.inputs(), output)
    elif name in _DROPOUTS:
        _check_not_training(step.value("train"))
        rules.elementwise(step.inputs(), output)
    elif name in REGROUPING:
        rules.regrouped(step.one("self", "input"), output)
    elif name in _KEEPING_SIZE:
        rules.same_size(step.one("self"), output)
        _check_pad(step)
    elif name not in _PERMUTING:
        _find_rule(name)(step)


def _check_pad(step: Step) -> None:
    """Check that nothing is added to the rows: one added and another taken away keep the number."""
    pads, value = step.value("pad"), step.one("self")
    if not isinstance(pads, list):
        return
    # Two numbers a dimension, from the last one on.
    changed = [place // 2 for place, size in enumerate(pads) if size]
    rules.along(value, [-1 - place for place in changed])


def _find_rule(name: str) -> Callable[[Step], None]:
    for names, rule in _RULES_OF_KINDS.items():
        if name in names:
            return rule
    return _RULES.get(name, _has_no_rule)


def _check_along(step: Step) -> None:
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
    # `flip` calls it `dims`.
    dim = step.value("dim") if "dim" in step.first.arguments else step.value("dims")
    axes = [dim] if isinstance(dim, int) else dim or None  # An empty list means all.
    values = step.inputs()
    for value in values:
        rules.along(value, axes)
    axis_places = {value.from_right for value in values if value.axis is not None}
    if len(axis_places) > 1:
        raise rules.RowsMix("rows of its tensors lie along different dimensions")


def _check_not_training(is_training: object) -> None:
    if is_training:
        raise rules.RowsMix("it behaves as in training")


def _check_batch_first(step: Step) -> None:
    values = step.inputs()
    # Attention has rows in its query, its key and its value.
    sources = 3 if step.name == "_native_multi_head_attention" else 1
    for value in values[:sources]:
        rules.at_axis(value, 0)
    rules.constants(values[sources:])
    if step.name in ("_native_multi_head_attention", "_transformer_encoder_layer_fwd"):
        _check_not_training(step.value("training"))


def _check_recurrent(step: Step) -> None:
    """Check recurrent layers: time is along another axis than the rows, states have rows at 1."""
    if "batch_first" not in step.first.arguments:
        raise rules.RowsMix("packed sequences have no rows")
    rules.at_axis(step.one("input"), 0 if step.value("batch_first") else 1)
    for state in step.operands("hx"):
        rules.at_axis(state, 1)
    rules.constants(step.operands("params"))
    _check_not_training(step.value("train") and step.value("dropout"))


def _check_linear(step: Step) -> None:
    if step.one("input").from_right == -1:
        raise rules.RowsMix("a product sums over the rows")
    rules.constants(step.inputs()[1:])


def _check_product(step: Step) -> None:
    rules.matmul(step.one("self"), step.one("other", "mat2"))


def _check_added_product(step: Step) -> None:
    left, right = step.one("mat1", "batch1"), step.one("mat2", "batch2")
    rules.matmul(left, right)
    added, result = step.one("self"), step.first.results[0]
    rules.elementwise([added], rules.rows_of((result.shape, step.second.results[0].shape)))


def _check_embedding(step: Step) -> None:
    rules.constants([step.one("weight")])


def _check_batch_norm(step: Step) -> None:
    _check_not_training(step.value("training"))
    rules.at_axis(step.one("input"), 0)
    rules.constants(step.inputs()[1:])


def _check_layer_norm(step: Step) -> None:
    value = step.one("input")
    rules.along(value, range(-len(step.value("normalized_shape")), 0))
    rules.constants(step.inputs()[1:])


def _check_attention(step: Step) -> None:
    """Check softmax(query · keyᵀ) · value, whose last two dimensions are positions and features."""
    operands = [step.one("query"), step.one("key"), step.one("value")]
    operands += step.operands("attn_mask")
    places = {operand.from_right for operand in operands if operand.axis is not None}
    if len(places) != 1 or max(places) > rules.LAST_OF_STACK:
        raise rules.RowsMix("it attends to other rows")
    if step.value("dropout_p"):
        raise rules.RowsMix("it behaves as in training")


def _check_gather(step: Step) -> None:
    value, index = step.one("self"), step.one("index")
    rules.along(value, [step.value("dim")])
    rules.along(index, [step.value("dim")])
    if index.axis is not None and value.axis != index.axis:
        # Of a table it takes elements of the table's row with the number of the request's.
        raise rules.RowsMix("it takes elements of other rows")


def _check_stack(step: Step) -> None:
    """Check that all tensors of a stack have their rows at the same axis."""
    if len({value.axis for value in step.inputs()}) > 1:
        raise rules.RowsMix("rows of its tensors lie along different dimensions")


def _check_one_hot(step: Step) -> None:
    if step.value("num_classes") < 0:
        raise rules.RowsMix("the number of classes depends on all rows")


def _has_no_rule(_step: Step) -> None:
    raise rules.RowsMix("it is not known to keep rows apart")


_RULES_OF_KINDS: dict[frozenset[str], Callable[[Step], None]] = {
    _ALONG_DIM: _check_along,
    _BATCH_FIRST: _check_batch_first,
    _RECURRENT: _check_recurrent,
}

_RULES: dict[str, Callable[[Step], None]] = {
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
