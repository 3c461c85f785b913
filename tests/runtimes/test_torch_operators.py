from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.runtimes.torch_walks import (
    SERIES,
    Function,
    Module,
    X,
    mixing,
    perceptron,
    traced,
)


class Recurrent(Module):
    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.body = torch.nn.LSTM(4, 8, 2, batch_first=batch_first)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.body(x)[0])


def image_net() -> Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(inplace=True),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Softmax(1),
    )


TABLE = torch.arange(64.0).reshape(8, 8)
IMAGES = torch.ones(2, 1, 8, 8)


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
        (Function(lambda x: torch.nn.functional.pad(x, [1, 0])), X),
        (Function(lambda x: x.clone().mul_(2)), X),
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
        (Function(lambda x: x.flip(0)), [X], "flip: it works along the rows"),
        (Function(lambda x: x[1:]), [X], "slice: "),
        (Function(lambda x: torch.softmax(x @ x.T, 1) @ x), [X], "matmul: "),
        (Function(lambda x: x + torch.rand_like(x)), [X], "rand_like: it is not known"),
        (Function(lambda x: torch.cdist(x, x)), [X], "cdist: "),
        (Function(lambda x, i: x[i]), [X, torch.zeros(2, dtype=torch.int64)], "index: "),
        (Function(lambda x: torch.nn.functional.pad(x, [0, 0, 1, -1])), [X], "pad: "),
        (Function(lambda x: x[torch.where(x[:, 0] > 0)[0]]), [X], "rows"),
        (Function(lambda x: x + torch.randn(4)), [X], "randn: it is drawn anew in each run"),
        (
            Function(lambda i: torch.gather(TABLE, 1, i)),
            [torch.zeros(2, 3, dtype=torch.int64)],
            "gather: it takes elements of other rows",
        ),
        (torch.nn.MultiheadAttention(4, 1), [SERIES] * 3, ""),
    ],
)
def test_operators_that_mix_rows_are_named(
    module: Module, examples: list[torch.Tensor], words: str
) -> None:
    mixed = mixing(traced(module, *examples), *examples)
    assert mixed is not None
    assert words in mixed
