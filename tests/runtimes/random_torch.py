"""Random small PyTorch programs: operators of many kinds, composed by a seeded generator.

A program is text, so that it can be scripted, traced and exported alike.
"""

from __future__ import annotations

import linecache
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.runtimes import onnx_drawing

ROWS = onnx_drawing.ROWS
TRIES_MAX = 60
Unfit = onnx_drawing.Unfit
FORMS = onnx_drawing.FORMS
FORMATS = ("script", "trace", "export")


class Drawing:
    """A program under construction, and the values of its variables for made-up inputs."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.inputs = self.chance.choice(FORMS)
        self.lines: list[str] = []
        self.weights: dict[str, torch.Tensor] = {}
        arrays = onnx_drawing.make_inputs(self.inputs, ROWS, self.numbers)
        self.values: dict[str, Any] = {
            name: torch.from_numpy(array) for name, array in arrays.items()
        }

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = torch.randn(shape)
        return f"self.{name}"

    def add(self, expression: str) -> str:
        """Add a line that keeps an expression, and return its variable. Raises Unfit."""
        name = f"h{len(self.lines)}"
        try:
            value = self.evaluate(expression)
        except (RuntimeError, IndexError, TypeError, ValueError, NotImplementedError) as error:
            raise Unfit from error
        if not isinstance(value, torch.Tensor) or not value.numel():
            raise Unfit
        self.values[name] = value
        self.lines.append(f"{name} = {expression}")
        return name

    def evaluate(self, expression: str) -> Any:
        holder = type("Holder", (), {name: tensor.clone() for name, tensor in self.weights.items()})
        copies = {name: value.clone() for name, value in self.values.items()}
        names = {"torch": torch, "self": holder, **copies}
        with torch.inference_mode():
            return eval(expression, names)

    def pick(self, kind: str = "f", least_rank: int = 1) -> str:
        """Return a variable of the kind, rather a late one. Raises Unfit if none is there."""
        fitting = [
            name
            for name, value in self.values.items()
            if value.is_floating_point() == (kind == "f") and value.dim() >= least_rank
        ]
        if not fitting:
            raise Unfit
        return self.chance.choice(fitting[-3:])

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.values[name].shape)

    def axis(self, name: str) -> int:
        rank = len(self.shape(name))
        return max(self.chance.randrange(rank), self.chance.randrange(rank))


def elementwise(drawing: Drawing) -> str:
    name = drawing.pick()
    text = drawing.chance.choice(
        [
            "torch.relu({0})",
            "torch.tanh({0})",
            "torch.nn.functional.gelu({0})",
            "{0} * 2.0 + 1.0",
            "{0}.clamp(-1.0, 1.0)",
            "torch.where({0} > 0, {0}, -{0})",
            "{0}.add(1.0).mul_(0.5)",
        ]
    )
    return drawing.add(text.format(name))


def with_weight(drawing: Drawing) -> str:
    name = drawing.pick()
    shape = drawing.shape(name)[drawing.chance.randrange(len(drawing.shape(name)) + 1) :]
    sign = drawing.chance.choice("+-*")
    return drawing.add(f"{name} {sign} {drawing.weight(*shape)}")


def two(drawing: Drawing) -> str:
    return drawing.add(f"{drawing.pick()} {drawing.chance.choice('+-*')} {drawing.pick()}")


def product(drawing: Drawing) -> str:
    name = drawing.pick()
    size = drawing.shape(name)[-1]
    text = drawing.chance.choice(
        [
            "torch.nn.functional.linear({0}, {1})",
            "{0} @ {1}.transpose(0, 1)",
            "{0} @ {0}.transpose(-1, -2)",
            "torch.matmul({0}, {2})",
            "torch.cdist({0}, {1})",
            "({0} @ {0}.transpose(-1, -2)).softmax(-1) @ {0}",
            "({0} @ {0}.transpose(-1, -2)).tril().softmax(-1) @ {0}",
        ]
    )
    return drawing.add(text.format(name, drawing.weight(4, size), drawing.pick()))


def along(drawing: Drawing) -> str:
    name = drawing.pick()
    text = drawing.chance.choice(
        [
            "{0}.softmax({1})",
            "{0}.cumsum({1})",
            "{0} - {0}.mean({1}, keepdim=True)",
            "{0}.sum({1})",
            "{0}.amax({1}, keepdim=True)",
            "{0}.std({1}, keepdim=True)",
            "{0} / ({0}.norm(dim={1}, keepdim=True) + 1.0)",
            "{0}.sort({1})[0]",
            "{0}.flip({1})",
            "{0}.cummax({1})[0]",
            "torch.topk({0}, 1, {1})[0]",
            "torch.cat([{0}, {0}.flip({1})], {1})",
            "torch.stack([{0}, -{0}], {1})",
            "torch.roll({0}, 1, {1})",
            "torch.nn.functional.normalize({0}, dim={1})",
            "{0}.select({1}, 0)",
            "{0}.narrow({1}, 0, 1)",
            "{0}.chunk(2, {1})[0]",
            "{0}.unsqueeze({1})",
            "{0}.squeeze({1})",
            "{0}.repeat_interleave(2, {1})",
            "{0}.argmax({1}).float()",
            "torch.logcumsumexp({0}, {1})",
            "torch.diff({0}, dim={1})",
        ]
    )
    return drawing.add(text.format(name, drawing.axis(name)))


def whole(drawing: Drawing) -> str:
    name = drawing.pick()
    text = drawing.chance.choice(
        [
            "torch.where({0}.max() > 1.0, {0} / 255.0, {0})",
            "{0} - {0}.mean()",
            "{0} / {0}.abs().max()",
            "{0}[{0}.flatten(1)[:, 0] > 0]",
            "{0}.flatten()",
            "{0}.flatten(1)",
            "{0}.transpose(0, -1)",
            "{0}.transpose(0, 1)",
            "{0}.squeeze()",
            "torch.nonzero({0}).float()",
            "torch.nn.functional.dropout({0}, 0.5, True)",
            "{0} + torch.rand_like({0})",
            "{0} + torch.arange({0}.size(0)).reshape(-1, *([1] * ({0}.dim() - 1)))",
            "torch.quantize_per_tensor_dynamic({0}, torch.qint8, False).dequantize()",
            "torch.fake_quantize_per_tensor_affine({0}, 0.1, 0, -128, 127)",
            "torch.tril({0})",
        ]
    )
    return drawing.add(text.format(name))


def by_size(drawing: Drawing) -> str:
    name = drawing.pick()
    text = drawing.chance.choice(
        [
            "{0} * {0}.size({1})",
            "{0} + {0}.size({1}) // 8",
            "{0} + {0}.size({1}) % 2",
            "{0} + min({0}.size({1}), 6)",
            "{0}.reshape({0}.size(0), -1)",
            "{0}.reshape(-1, {0}.size(-1))",
            "{0}.reshape(-1, 2)",
            "{0}.view(-1)",
            "{0} / {0}.size(-1) ** 0.5",
            "{0} + torch.zeros({0}.size(0), 1)",
            "torch.ones_like({0}).cumsum({1}) * {0}",
            "{0} + torch.full([{0}.size({1})], 0.5).sum()",
        ]
    )
    return drawing.add(text.format(name, drawing.axis(name)))


def look_up(drawing: Drawing) -> str:
    index, name = drawing.pick("i"), drawing.pick()
    text = drawing.chance.choice(
        [
            "torch.nn.functional.embedding({0}, {2})",
            "torch.nn.functional.embedding_bag({0}.flatten(), {2}, {0}[:1].flatten() * 0)",
            "{1}[{0}]",
            "{2}[{0}]",
            "torch.gather({1}, -1, {0})",
            "torch.gather({2}, -1, {0})",
            "torch.index_select({1}, 0, {0}.flatten())",
            "torch.nn.functional.one_hot({0}, 5).float()",
            "torch.nn.functional.one_hot({0}).float()",
            "torch.zeros(8).index_add(0, {0}.flatten(), {0}.flatten().float())",
            "torch.bincount({0}.flatten()).float()",
            "{1} * ({0} > 0).float().reshape({1}.size(0), -1)[:, :1]",
        ]
    )
    return drawing.add(text.format(index, name, drawing.weight(8, 4)))


def masked(drawing: Drawing) -> str:
    mask, name = drawing.pick("i"), drawing.pick(least_rank=2)
    text = drawing.chance.choice(
        [
            "({1} * {0}.unsqueeze(-1)).sum(1) / {0}.sum(1, keepdim=True).clamp(1)",
            "{1}.masked_fill({0}.unsqueeze(-1) == 0, -1e9).softmax(1)",
            "{1}[:, : int({0}.sum(-1).max())]",
            "({1} * {0}.unsqueeze(-1)).sum(1) / {0}.max()",
        ]
    )
    return drawing.add(text.format(mask, name))


def recurrent(drawing: Drawing) -> str:
    name = drawing.pick(least_rank=2)
    if len(drawing.shape(name)) == 2:
        name = drawing.add(f"{name}.unsqueeze({drawing.chance.choice([0, 1])})")
    kind, gates = drawing.chance.choice([("lstm", 4), ("gru", 3), ("rnn_tanh", 1)])
    is_batch_first = drawing.chance.random() < 0.5
    size = drawing.shape(name)[-1]
    weights = ", ".join([drawing.weight(4 * gates, size), drawing.weight(4 * gates, 4)])
    axis = 0 if is_batch_first else 1
    state = f"torch.zeros(1, {name}.size({axis}), 4)"
    states = f"[{state}, {state}]" if kind == "lstm" else state
    rest = f"False, 1, 0.0, False, False, {is_batch_first}"
    return drawing.add(f"torch.{kind}({name}, {states}, [{weights}], {rest})[0]")


def image(drawing: Drawing) -> str:
    name = drawing.pick(least_rank=3)
    shape = drawing.shape(name)
    kernel = drawing.weight(2, shape[1], *[1] * (len(shape) - 2))
    plain = len(shape) - 2
    text = drawing.chance.choice(
        [
            f"torch.nn.functional.conv{plain}d({{0}}, {kernel})",
            f"torch.nn.functional.avg_pool{plain}d({{0}}, 1)",
            f"torch.nn.functional.max_pool{plain}d({{0}}, 2)",
            "torch.nn.functional.interpolate({0}, scale_factor=2.0)",
            "torch.nn.functional.interpolate({0}, size=[{0}.size(0)] * ({0}.dim() - 2))",
            "torch.nn.functional.pad({0}, [1, 0])",
            "torch.nn.functional.pad({0}, [0, 0, 0, 0, 1, -1])",
            "torch.nn.functional.pixel_unshuffle({0}, 2)",
            "torch.nn.functional.instance_norm({0})",
            "torch.nn.functional.scaled_dot_product_attention({0}, {0}, {0}, is_causal=True)",
            "torch.nn.functional.group_norm({0}, 1)",
        ]
    )
    return drawing.add(text.format(name))


def normalization(drawing: Drawing) -> str:
    name = drawing.pick(least_rank=2)
    size, last = drawing.shape(name)[1], drawing.shape(name)[-1]
    mean, spread = drawing.weight(size), f"{drawing.weight(size)}.abs()"
    text = drawing.chance.choice(
        [
            f"torch.nn.functional.layer_norm({{0}}, [{last}])",
            f"torch.nn.functional.layer_norm({{0}}, {list(drawing.shape(name))})",
            f"torch.nn.functional.batch_norm({{0}}, {mean}, {spread})",
            f"torch.nn.functional.batch_norm({{0}}, {mean}, {mean}, training=True)",
        ]
    )
    return drawing.add(text.format(name))


def in_place(drawing: Drawing) -> str:
    """Change a tensor of the module or of the run in place."""
    name = drawing.pick()
    text = drawing.chance.choice(
        [
            f"{{0}} + {drawing.weight(1)}.add_(1.0)",
            f"{{0}} + {drawing.weight(1)}.mul_(1.0 + 1e-6)",
            "{0}.clone().cumsum_(0)",
            "{0}.clone().fill_(1.0)",
        ]
    )
    return drawing.add(text.format(name))


OPERATORS: list[Callable[[Drawing], str]] = [
    *(elementwise, with_weight, two, product, product, along, along, along, whole, by_size),
    *(look_up, masked, recurrent, image, normalization, in_place),
]


def draw(seed: int, length: int = 4) -> Drawing:
    """Return a program of about `length` operators."""
    drawing = Drawing(seed)
    for _ in range(TRIES_MAX):
        lines, weights, values = len(drawing.lines), dict(drawing.weights), dict(drawing.values)
        try:
            drawing.chance.choice(OPERATORS)(drawing)
        except (Unfit, IndexError):
            del drawing.lines[lines:]
            drawing.weights, drawing.values = weights, values
            continue
        length -= 1
        if not length:
            break
    return drawing


def source(drawing: Drawing) -> str:
    """Return `forward` as text; its output is the latest variable, rather one with as many rows."""
    last = [name for name in drawing.values if name not in drawing.inputs]
    batched = [name for name in last if drawing.shape(name)[:1] == (ROWS,)]
    if not last:
        raise Unfit
    arguments = ", ".join(f"{name}: torch.Tensor" for name in drawing.inputs)
    body = "".join(f"    {line}\n" for line in drawing.lines)
    return f"def forward(self, {arguments}):\n{body}    return {(batched or last)[-1]}\n"


def save(drawing: Drawing, path: Path, form: str) -> Callable[..., Any]:
    """Save the program in one of FORMATS, and return it. Raises Unfit if torch can't."""
    text = source(drawing)
    examples = tuple(drawing.values[name] for name in drawing.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = _module(drawing, text)
            if form == "export":
                return _export(module, examples, path)
            make: Any = torch.jit.script if form == "script" else torch.jit.trace
            program = (
                make(module) if form == "script" else make(module, examples, check_trace=False)
            )
            program.save(str(path))
        except Exception as error:  # what torch can't express it says by many exceptions
            raise Unfit from error
    return program  # type: ignore[no-any-return]


def _module(drawing: Drawing, text: str) -> torch.nn.Module:
    names: dict[str, Any] = {"torch": torch}
    # torch.jit.script reads the text of a function where Python keeps that of files.
    file = f"<drawn {hash(text)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(compile(text, file, "exec"), names)
    module: torch.nn.Module = type("Drawn", (torch.nn.Module,), {"forward": names["forward"]})()
    for name, tensor in drawing.weights.items():
        module.register_buffer(name, tensor.clone())
    module.eval()
    return module


def _export(module: torch.nn.Module, examples: tuple[Any, ...], path: Path) -> Callable[..., Any]:
    rows = torch.export.Dim("rows", min=1, max=1000)
    shapes = tuple({0: rows} for _ in examples)
    program = torch.export.export(module, examples, dynamic_shapes=shapes)
    torch.export.save(program, path)
    return program.module()
