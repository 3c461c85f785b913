from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from meshserve.runtimes import torch_calls


def recorded(function: Callable[..., Any], *tensors: torch.Tensor) -> torch_calls.Recording:
    """Return the recording of one run, in which these tensors have the first numbers."""
    recording = torch_calls.Recording(torch)
    for tensor in tensors:
        recording.tensor(tensor)
    with torch.inference_mode(), torch_calls.recording_mode(torch, recording):
        function(*tensors)
    return recording


X = torch.ones(3, 4)


def test_operators_are_kept_in_their_order_with_what_they_take_and_give() -> None:
    first, second = recorded(lambda x: (x + 1).cumsum(1), X).calls
    assert str(first.operator) == "aten.add.Tensor"
    assert str(second.operator) == "aten.cumsum.default"
    assert first.arguments["self"] == torch_calls.SeenTensor(0, (3, 4))
    assert second.arguments["self"] == first.results[0]
    assert second.arguments["dim"] == 1


def test_arguments_that_were_left_out_have_their_defaults() -> None:
    (call,) = recorded(lambda x: x.sum(1), X).calls
    assert call.arguments["dim"] == [1]
    assert call.arguments["keepdim"] is False


def test_tensors_that_no_operator_made_are_constants() -> None:
    weight = torch.full((4,), 2.0)
    recording = recorded(lambda x: x * weight, X)
    assert list(recording.constants.values()) == [weight]


def test_tensors_are_found_inside_lists() -> None:
    (call,) = recorded(lambda x: torch.cat([x, x, x * 1]), X).calls[-1:]
    numbers = [tensor.number for tensor in torch_calls.tensors_in(call.arguments["tensors"])]
    assert numbers[:2] == [0, 0]
    assert numbers[2] != 0


@pytest.mark.parametrize("value", [None, 3, "text", [1, 2]])
def test_other_arguments_hold_no_tensors(value: object) -> None:
    assert list(torch_calls.tensors_in(value)) == []
