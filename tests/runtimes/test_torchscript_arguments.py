from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from meshserve import errors
from meshserve.runtimes import torchscript_arguments

A, B = np.array([1.0, 2.0], np.float32), np.array([3.0, 4.0], np.float32)


class Several(torch.nn.Module):
    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, scale: float = 2.0, name: str = "n"
    ) -> torch.Tensor:
        if mask is not None:
            x = x * mask
        return x * scale + len(name)


class Named(torch.nn.Module):
    def forward(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        return parts["a"] - parts["b"]


class Listed(torch.nn.Module):
    def forward(self, parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(parts).sum(0)


class Paired(torch.nn.Module):
    def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return pair[0] - pair[1]


class Texts(torch.nn.Module):
    def forward(self, texts: list[str], most: int) -> torch.Tensor:
        return torch.tensor([min(len(text), most) for text in texts])


class Nested(torch.nn.Module):
    def forward(self, parts: list[list[torch.Tensor]]) -> torch.Tensor:
        return parts[0][0]


class Beside(torch.nn.Module):
    def forward(self, parts: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return parts["a"] + x


def scripted(module: torch.nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module.eval())


def opened(module: Any) -> torchscript_arguments.OpenArguments:
    return torchscript_arguments.OpenArguments(module.forward.schema.arguments[1:])


def ask(module: torch.nn.Module, inputs: Mapping[str, np.ndarray]) -> Any:
    program = scripted(module)
    return program(**opened(program).bind(inputs, torch.from_numpy)).tolist()


@pytest.mark.parametrize(
    ("module", "inputs", "right"),
    [
        (Several(), {"x": A}, [3, 5]),
        (Several(), {"x": A, "mask": B}, [7, 17]),
        (Several(), {"INPUT__1": B, "INPUT__0": A}, [7, 17]),
        (Several(), {"x": A, "scale": np.array(3, np.int64)}, [4, 7]),
        (Several(), {"x": A, "name": np.array([b"abc"], object)}, [5, 7]),
        (Named(), {"b": B, "a": A}, [-2, -2]),
        (Listed(), {"parts__1": A, "parts__0": B}, [4, 6]),
        (Listed(), {"INPUT__0": A}, [1, 2]),
        (Paired(), {"pair__1": A, "pair__0": B}, [2, 2]),
        (Paired(), {"INPUT__0": A, "INPUT__1": B}, [-2, -2]),
        (Texts(), {"texts": np.array([b"a", b"bcd"], object), "most": np.array([2])}, [1, 2]),
    ],
    ids=repr,
)
def test_inputs_become_the_arguments_that_forward_takes(
    module: torch.nn.Module, inputs: Mapping[str, np.ndarray], right: list[float]
) -> None:
    assert ask(module, inputs) == right


@pytest.mark.parametrize(
    ("module", "inputs", "reason"),
    [
        (Several(), {"mask": B}, "input 'x' is missing; it has: x, mask, scale, name"),
        (Several(), {"x": A, "y": B}, "no input 'y'"),
        (Several(), {"INPUT__7": A}, "no input 'INPUT__7'"),
        (Several(), {"INPUT__0": A, "X__0": A}, "mean the same argument"),
        (Several(), {"x": np.array([b"a"], object)}, "torch has no tensors of texts"),
        (Several(), {"x": A, "scale": A}, r"one float; FP32 of shape \[2\]"),
        (Several(), {"x": A, "name": A[:1]}, "one str; FP32"),
        (Texts(), {"texts": np.array([b"a"], object), "most": A[:1]}, "one int; FP32"),
        (Paired(), {"pair__0": A}, "pair__0 to pair__1; pair__0 came"),
        (Listed(), {"parts__0": A, "parts__2": A}, "parts__0 to parts__1"),
        (Paired(), {}, "'pair' is missing"),
    ],
    ids=repr,
)
def test_what_is_known_is_checked(
    module: torch.nn.Module, inputs: Mapping[str, np.ndarray], reason: str
) -> None:
    with pytest.raises(errors.InvalidRequest, match=reason):
        ask(module, inputs)


def test_names_are_known_before_the_first_request() -> None:
    arguments = opened(scripted(Several()))
    assert [spec.name for spec in arguments.specs()] == ["x", "mask", "scale", "name"]
    assert arguments.optional() == {"mask", "scale", "name"}
    assert [spec.name for spec in opened(scripted(Paired())).specs()] == ["pair__0", "pair__1"]
    assert opened(scripted(Named())).specs() == ()


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Nested(), r"needs 'parts' of type List\[List\[Tensor\]\]"),
        (Beside(), "a dictionary of tensors, beside other"),
    ],
    ids=repr,
)
def test_arguments_that_no_input_can_be_are_told_at_load(
    module: torch.nn.Module, reason: str
) -> None:
    with pytest.raises(errors.LoadFailed, match=reason):
        opened(scripted(module))
