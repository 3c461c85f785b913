"""Walks over the operators of small PyTorch programs for tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from meshserve.runtimes import row_rules, torch_model, torch_rows

Module = torch.nn.Module


class Function(Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Any) -> Any:
        return self.function(*tensors)


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


X = torch.ones(2, 4)
SERIES = torch.ones(2, 5, 4)
