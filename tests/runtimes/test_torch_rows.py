from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import pytorch
from tests.runtimes.torch_walks import (
    Function,
    Module,
    X,
    mixing,
    perceptron,
    scripted,
    traced,
)


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


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: torch.where(x.max() > 1, x / 255, x), "the operators depend"),
        (lambda x: x * x.size(0), "a value depends on the number of rows"),
        (lambda x: x.transpose(0, 1), "output 'output' has not one row"),
    ],
)
def test_what_no_rule_allows_is_named(function: Callable[..., Any], words: str) -> None:
    assert words in (mixing(traced(Function(function), X), X) or "rows were taken to be apart")


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


class CallsInBuffer(Module):
    """Adds how often it was called, which it keeps in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.full((1,), 1e6))

    def forward(self, x: torch.Tensor) -> Any:
        self.calls += 1  # type: ignore[operator,assignment]
        return x + self.calls  # type: ignore[operator]


class CallsInAttribute(Module):
    """Adds how often it was called, which it keeps in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.count: int = 1_000_000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return x + self.count


def test_a_module_that_counts_its_calls_does_not_keep_them_apart(tmp_path: Path) -> None:
    reason = mixing(traced(CallsInBuffer(), X), X)
    assert reason == "add_: it changes a tensor that may outlive the run"
    scripted(CallsInAttribute()).save(str(tmp_path / "model.pt"))
    artifact = model_runtime.Artifact(tmp_path, "sha256:0", 1)
    inputs = (model.TensorSpec("x", "FP32", (-1, 4)),)
    spec = model.ModelSpec(model.ModelId("m"), "", inputs=inputs)
    runtime = pytorch.TorchRuntime()
    loaded = runtime.load(artifact, spec, "cpu")
    reason = runtime.find_row_mixing(loaded, artifact, spec)
    assert reason == "a run changes attributes of the module"
