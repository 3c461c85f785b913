"""Operators of many kinds for random ONNX graphs.

They are drawn with random axes, so some of them keep rows apart and some don't.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.runtimes import onnx_drawing

# Each takes a drawing and adds one operator, or the few that belong together.


def elementwise(drawing: onnx_drawing.Drawing) -> str:
    kind = drawing.chance.choice(["Relu", "Tanh", "Sigmoid", "Abs", "Neg", "Floor", "Erf"])
    return drawing.add(kind, drawing.pick())


def with_weight(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    shape = drawing.shape(name)[drawing.chance.randrange(len(drawing.shape(name)) + 1) :]
    kind = drawing.chance.choice(["Add", "Mul", "Sub", "Max", "Min"])
    return drawing.add(kind, name, drawing.floats(*shape))


def two(drawing: onnx_drawing.Drawing) -> str:
    kind = drawing.chance.choice(["Add", "Mul", "Sub", "Max", "Min"])
    return drawing.add(kind, drawing.pick(), drawing.pick())


def gemm(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    turned = drawing.chance.random() < 0.2
    size = drawing.shape(name)[0 if turned else -1]
    return drawing.add("Gemm", name, drawing.floats(size, 4), transA=int(turned))


def matmul(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    if drawing.chance.random() < 0.3:
        return drawing.add("MatMul", name, drawing.pick())
    return drawing.add("MatMul", name, drawing.floats(drawing.shape(name)[-1], 4))


def attention(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick(least_rank=2)
    rank = len(drawing.shape(name))
    order = [*range(rank - 2), rank - 1, rank - 2]
    scores = drawing.add("MatMul", name, drawing.add("Transpose", name, perm=order))
    if drawing.chance.random() < 0.5:
        size = drawing.shape(scores)[-1]
        scores = drawing.add(
            "Add", scores, drawing.weight(np.triu(np.full((size, size), -1e9, np.float32), 1))
        )
    return drawing.add("MatMul", drawing.add("Softmax", scores, axis=-1), name)


def masked(drawing: onnx_drawing.Drawing) -> str:
    mask, name = drawing.pick("i"), drawing.pick()
    seen = drawing.add("Cast", mask, to=TensorProto.FLOAT)
    if len(drawing.shape(mask)) < len(drawing.shape(name)):
        seen = drawing.add("Unsqueeze", seen, drawing.whole(-1))
    total = drawing.add("ReduceSum", drawing.add("Mul", name, seen), drawing.whole(1), keepdims=1)
    return drawing.add("Div", total, drawing.add("ReduceMax", seen, axes=[drawing.axis(seen)]))


def softmax(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    kind = drawing.chance.choice(["Softmax", "LogSoftmax", "Hardmax", "LpNormalization"])
    return drawing.add(kind, name, axis=drawing.axis(name))


def reduce(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    kind = drawing.chance.choice(["ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd"])
    keep = int(drawing.chance.random() < 0.7)
    if drawing.chance.random() < 0.1:
        reduced = drawing.add(kind, name, keepdims=keep)
    else:
        reduced = drawing.add(kind, name, axes=[drawing.axis(name)], keepdims=keep)
    return drawing.add("Sub", name, reduced) if drawing.chance.random() < 0.5 else reduced


def cumulative(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    return drawing.add("CumSum", name, drawing.weight(np.array(drawing.axis(name))))


def condition(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    of_all = drawing.chance.random() < 0.5
    axes = None if of_all else [drawing.axis(name)]
    largest = drawing.add("ReduceMax", name, keepdims=1, axes=axes)
    is_big = drawing.add("Greater", largest, drawing.weight(np.array(1, np.float32)))
    return drawing.add("Where", is_big, drawing.add("Neg", name), name)


def concat(drawing: onnx_drawing.Drawing) -> str:
    first = drawing.pick()
    return drawing.add("Concat", first, drawing.pick(), axis=drawing.axis(first))


def gather(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    axis = drawing.axis(name)
    places = drawing.numbers.integers(0, drawing.shape(name)[axis], 2)
    return drawing.add("Gather", name, drawing.whole(*map(int, places)), axis=axis)


def look_up(drawing: onnx_drawing.Drawing) -> str:
    index = drawing.pick("i")
    table = drawing.floats(8, 4) if drawing.chance.random() < 0.6 else drawing.pick()
    return drawing.add("Gather", table, index, axis=0)


def gather_elements(drawing: onnx_drawing.Drawing) -> str:
    index = drawing.pick("i")
    shape = drawing.shape(index)
    constant = drawing.chance.random() < 0.4
    name = drawing.floats(64, *[8] * (len(shape) - 1)) if constant else drawing.pick()
    return drawing.add("GatherElements", name, index, axis=drawing.axis(index))


def scatter(drawing: onnx_drawing.Drawing) -> str:
    index = drawing.pick("i")
    updates = drawing.add("Cast", index, to=TensorProto.FLOAT)
    return drawing.add("ScatterElements", drawing.pick(), index, updates, axis=drawing.axis(index))


def reshape(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    count = int(np.prod(drawing.shape(name)))
    sizes = [size for size in (1, 2, 3, 4, 5, 6) if count % size == 0]
    last = drawing.chance.choice(sizes)
    options = [[-1, last], [0, -1], [-1], [last, -1], [0, last, -1], [-1, *drawing.shape(name)[1:]]]
    return drawing.add("Reshape", name, drawing.whole(*drawing.chance.choice(options)))


def by_size(drawing: onnx_drawing.Drawing) -> str:
    """Use the number of rows, or another size, as a number or as a size."""
    name = drawing.pick()
    sizes = drawing.add("Shape", name)
    size = drawing.add("Gather", sizes, drawing.whole(drawing.axis(name)), axis=0)
    change = drawing.chance.choice(["", "Mod", "Div", "Min", "Max", "Equal"])
    if change:
        size = drawing.add(change, size, drawing.whole(drawing.chance.choice([2, 3, 5, 8, 20])))
    if change != "Equal" and drawing.chance.random() < 0.4:
        shape = drawing.add("Concat", size, drawing.whole(-1), axis=0)
        return drawing.add("Reshape", name, shape)
    if change == "Mod" and drawing.chance.random() < 0.5:
        end = drawing.add("Add", size, drawing.whole(1))
        return drawing.add("Slice", name, size, end, drawing.whole(drawing.axis(name)))
    return drawing.add("Add", name, drawing.add("Cast", size, to=TensorProto.FLOAT))


def transpose(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick(least_rank=2)
    order = list(range(len(drawing.shape(name))))
    drawing.chance.shuffle(order)
    return drawing.add("Transpose", name, perm=order)


def squeeze(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    if drawing.chance.random() < 0.5:
        return drawing.add("Unsqueeze", name, drawing.whole(drawing.axis(name)))
    if drawing.chance.random() < 0.3:
        return drawing.add("Squeeze", name)
    return drawing.add("Squeeze", name, drawing.whole(drawing.axis(name)))


def recurrent(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick(least_rank=2)
    if len(drawing.shape(name)) == 2:
        name = drawing.add("Unsqueeze", name, drawing.whole(drawing.chance.choice([0, 1])))
    elif drawing.chance.random() < 0.5:
        name = drawing.add("Transpose", name, perm=[1, 0, 2])
    kind, gates = drawing.chance.choice([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    features = drawing.shape(name)[-1]
    weights = drawing.floats(1, 4 * gates, features), drawing.floats(1, 4 * gates, 4)
    states = drawing.add(kind, name, *weights, hidden_size=4)
    states = drawing.add("Squeeze", states, drawing.whole(1))
    return drawing.add("Transpose", states, perm=[1, 0, 2])


def convolution(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick(least_rank=3)
    shape = drawing.shape(name)
    kernel = [1 if size < 3 else 3 for size in shape[2:]]
    weight = drawing.floats(2, shape[1], *kernel)
    return drawing.add("Conv", name, weight, pads=[size // 2 for size in kernel] * 2)


def pooling(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick(least_rank=3)
    kernel = [min(size, 2) for size in drawing.shape(name)[2:]]
    kind = drawing.chance.choice(["MaxPool", "AveragePool", "GlobalAveragePool"])
    return drawing.add(kind, name, kernel_shape=None if kind[0] == "G" else kernel)


def resize(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick(least_rank=3)
    scales = [1.0] * len(drawing.shape(name))
    scales[drawing.axis(name)] = 2.0
    scale = drawing.weight(np.array(scales, np.float32))
    return drawing.add("Resize", name, "", scale, mode=drawing.chance.choice(["nearest", "linear"]))


def normalization(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick(least_rank=2)
    shape = drawing.shape(name)
    kind = drawing.chance.choice(["layer", "batch", "instance", "training", "MeanVariance"])
    channels = [drawing.floats(shape[1]) for _ in range(2)]
    if kind == "layer":
        axis = drawing.axis(name)
        return drawing.add("LayerNormalization", name, drawing.floats(*shape[axis:]), axis=axis)
    if kind == "instance":
        return drawing.add("InstanceNormalization", name, *channels)
    if kind == "MeanVariance":
        return drawing.add("MeanVarianceNormalization", name, axes=[drawing.axis(name)])
    spread = drawing.weight(np.ones(shape[1], np.float32))
    is_training = kind == "training"
    return drawing.add(
        "BatchNormalization",
        *(name, *channels, channels[0], spread),
        count=3 if is_training else 1,
        training_mode=int(is_training),
    )


def top(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    axis = drawing.axis(name)
    count = drawing.chance.randint(1, drawing.shape(name)[axis])
    return drawing.add("TopK", name, drawing.whole(count), axis=axis, count=2)


def arg_max(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    return drawing.add(
        "ArgMax", name, axis=drawing.axis(name), keepdims=drawing.chance.choice([0, 1])
    )


def one_hot(drawing: onnx_drawing.Drawing) -> str:
    index = drawing.pick("i")
    bounds = drawing.weight(np.array([0, 1], np.float32))
    depth = drawing.weight(np.array(5))
    return drawing.add("OneHot", index, depth, bounds, axis=drawing.chance.choice([-1, 0, 1]))


def quantized(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    if drawing.chance.random() < 0.5:
        scale, zero = (
            drawing.weight(np.array(0.1, np.float32)),
            drawing.weight(np.array(9, np.uint8)),
        )
        steps = drawing.add("QuantizeLinear", name, scale, zero)
        return drawing.add("DequantizeLinear", steps, scale, zero)
    steps = drawing.add("DynamicQuantizeLinear", name, count=3)
    base = steps.rpartition("_")[0]
    return drawing.add("DequantizeLinear", steps, f"{base}_1", f"{base}_2")


def triangle(drawing: onnx_drawing.Drawing) -> str:
    return drawing.add("Trilu", drawing.pick(least_rank=2), upper=drawing.chance.choice([0, 1]))


def pad(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    pads = [0] * (2 * len(drawing.shape(name)))
    axis = drawing.axis(name)
    pads[axis], pads[axis + len(pads) // 2] = drawing.chance.choice(
        [(1, -1), (-1, 1), (1, 0), (0, 2)]
    )
    return drawing.add("Pad", name, drawing.whole(*pads))


def tile(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    repeats = [1] * len(drawing.shape(name))
    repeats[drawing.axis(name)] = 2
    return drawing.add("Tile", name, drawing.whole(*repeats))


def part(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    axis = drawing.axis(name)
    start, end, step = drawing.chance.choice([(0, 2, 1), (1, 99, 1), (-1, -99, -1), (0, 99, 2)])
    bounds = [drawing.whole(number) for number in (start, end, axis, step)]
    return drawing.add("Slice", name, *bounds)


def rows_of_its_own(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    is_big = drawing.add("Greater", name, drawing.weight(np.array(0, np.float32)))
    if drawing.chance.random() < 0.5:
        places = drawing.add("NonZero", is_big)
        return drawing.add("Cast", places, to=TensorProto.FLOAT)
    kept = drawing.add("ReduceMax", drawing.add("Cast", is_big, to=TensorProto.INT32), axes=[-1])
    return drawing.add("Compress", name, drawing.add("Cast", kept, to=TensorProto.BOOL), axis=0)


def noise(drawing: onnx_drawing.Drawing) -> str:
    kind = drawing.chance.choice(["RandomNormalLike", "Bernoulli", "Dropout"])
    if kind == "Dropout":
        ratio = drawing.weight(np.array(0.5, np.float32))
        return drawing.add(kind, drawing.pick(), ratio, drawing.weight(np.ones((), bool)))
    return drawing.add(kind, drawing.pick())


def branch(drawing: onnx_drawing.Drawing) -> str:
    """Take another way if the first number of all rows is positive."""
    name = drawing.pick()
    largest = drawing.add("ReduceMax", name, keepdims=0)
    is_big = drawing.add("Greater", largest, drawing.weight(np.array(1, np.float32)))
    ways: dict[str, Any] = {}
    for way, kind in (("then_branch", "Neg"), ("else_branch", "Identity")):
        body = helper.make_graph(
            [helper.make_node(kind, [name], ["r"])], way, [], [onnx.ValueInfoProto(name="r")]
        )
        ways[way] = body
    drawing.nodes.append(helper.make_node("If", [is_big], ["branched"], **ways))
    drawing.values["branched"] = drawing.values[name]
    return "branched"


def fill(drawing: onnx_drawing.Drawing) -> str:
    """Make a tensor with the sizes of another, and add that to it."""
    name = drawing.pick()
    zeros = drawing.add("ConstantOfShape", drawing.add("Shape", name))
    return drawing.add("Add", name, drawing.add("CumSum", zeros, drawing.weight(np.array(0))))


def expand(drawing: onnx_drawing.Drawing) -> str:
    name = drawing.pick()
    shape = drawing.add("Shape", name)
    return drawing.add("Expand", drawing.floats(*drawing.shape(name)[1:]), shape)


OPERATORS: list[Callable[[onnx_drawing.Drawing], str]] = [
    *(elementwise, with_weight, two, gemm, matmul, attention, masked, softmax, reduce, cumulative),
    *(condition, concat, gather, look_up, gather_elements, scatter, reshape, by_size, transpose),
    *(squeeze, recurrent, convolution, pooling, resize, normalization, top, arg_max, one_hot),
    *(quantized, triangle, pad, tile, part, rows_of_its_own, noise, branch, fill, expand),
]
