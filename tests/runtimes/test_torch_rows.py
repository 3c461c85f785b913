from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from meshserve.runtimes import row_rules, torch_model, torch_rows

Module = torch.nn.Module


class Function(Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Any) -> Any:
        return self.function(*tensors)


class Recurrent(Module):
    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.body = torch.nn.LSTM(4, 8, 2, batch_first=batch_first)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.body(x)[0])


class Threshold(Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if float(x.max()) > 1.0:
            x = x / 255.0
        return x


class Counted(Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > 6:
            x = x - x.mean(0)
        return x


def traced(module: Module, *examples: torch.Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace: Any = torch.jit.trace
        return trace(module.eval(), examples, check_trace=False)


def scripted(module: Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script: Any = torch.jit.script
        return script(module.eval())


def mixing(module: Any, *rows: torch.Tensor) -> str | None:
    """Return what a walk says of a program that takes tensors like these rows."""
    first, second = ([torch.cat([row[:1]] * count) for row in rows] for count in row_rules.ROWS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch_rows.check_control_flow(torch, module)
        torch_rows.walk(torch, module, (first, second), torch_model.name_outputs)
    except row_rules.RowsMix as mix:
        return str(mix)
    return None


def perceptron() -> Module:
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 3)
    )


def image_net() -> Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(inplace=True),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Softmax(1),
    )


X = torch.ones(2, 4)
IMAGES = torch.ones(2, 1, 8, 8)
SERIES = torch.ones(2, 5, 4)


@pytest.mark.parametrize(
    ("module", "example"),
    [
        (perceptron(), X),
        (image_net(), IMAGES),
        (Recurrent(batch_first=True), SERIES),
        (Function(lambda x: x.cumsum(1)), X),
        (Function(lambda x: x.reshape(-1, 2, 2).sum(2).reshape(x.shape[0], -1)), X),
        (Function(lambda x: torch.cat([x, x[:, :1]], 1)), X),
        (Function(lambda x: x - x.mean(1, keepdim=True)), X),
        (Function(lambda x: x.max(1)), X),
        (Function(lambda x: torch.bmm(x, x.transpose(1, 2)).softmax(-1)), SERIES),
    ],
)
def test_operators_that_keep_rows_apart_are_shown(module: Module, example: torch.Tensor) -> None:
    assert mixing(traced(module, example), example) is None


@pytest.mark.parametrize(
    ("module", "examples", "words"),
    [
        (Recurrent(batch_first=False), [SERIES], "lstm: "),
        (Function(lambda x: x.cumsum(0)), [X], "cumsum: it works along the rows"),
        (Function(lambda x: x - x.mean(0)), [X], "mean: "),
        (Function(lambda x: torch.where(x.max() > 1, x / 255, x)), [X], "the operators depend"),
        (Function(lambda x: x * x.size(0)), [X], "a value depends on the number of rows"),
        (Function(lambda x: x.flip(0)), [X], "flip: it works along the rows"),
        (Function(lambda x: x[1:]), [X], "slice: "),
        (Function(lambda x: torch.softmax(x @ x.T, 1) @ x), [X], "matmul: "),
        (Function(lambda x: x + torch.rand_like(x)), [X], "rand_like: it is not known"),
        (Function(lambda x: torch.cdist(x, x)), [X], "cdist: "),
        (Function(lambda x, i: x[i]), [X, torch.zeros(2, dtype=torch.int64)], "index: "),
        (Function(lambda x: x.transpose(0, 1)), [X], "output 'output' has not one row"),
        (torch.nn.MultiheadAttention(4, 1), [SERIES] * 3, ""),
    ],
)
def test_operators_that_mix_rows_are_named(
    module: Module, examples: list[torch.Tensor], words: str
) -> None:
    mixed = mixing(traced(module, *examples), *examples)
    assert mixed is not None
    assert words in mixed


@pytest.mark.parametrize(
    ("module", "is_shown"),
    [(perceptron(), True), (Threshold(), False), (Counted(), False)],
)
def test_ways_that_a_walk_does_not_see_show_nothing(module: Module, is_shown: bool) -> None:
    assert (mixing(scripted(module), X) is None) is is_shown


def test_an_exported_program_is_followed_as_well() -> None:
    batch = {0: torch.export.Dim("batch")}
    for function, is_shown in ((lambda x: x.sin(), True), (lambda x: x - x.mean(0), False)):
        program = torch.export.export(Function(function), (X,), dynamic_shapes=((batch,),))
        assert (mixing(program.module(), X) is None) is is_shown


def test_a_state_that_outlives_a_run_shows_nothing() -> None:
    class Keeping(Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("last", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            last: Any = self.last
            last += x.amax()
            return torch.add(x, last)

    assert mixing(traced(Keeping(), X), X) is not None
