from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from meshserve import errors
from tests.runtimes import contract
from tests.runtimes.torch_files import Cnn, exported, rewritten


def test_a_dictionary_names_its_outputs_and_arguments_may_nest(tmp_path: Path) -> None:
    class Named(torch.nn.Module):
        def forward(self, pair: Any, *, scale: Any) -> Any:
            return {"sum": (pair[0] + pair[1]) * scale, "first": pair[0]}

    row = torch.ones(2, 3)
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Named(), ((row, row),), {"scale": row}), path)
    loaded = contract.load(path)
    assert [spec.name for spec in loaded.signature.outputs] == ["sum", "first"]
    assert [spec.shape for spec in loaded.signature.inputs] == [(2, 3)] * 3
    assert not loaded.signature.has_batch_dimension
    answer = loaded.predict(
        {spec.name: np.full((2, 3), 2, np.float32) for spec in loaded.signature.inputs}, ["sum"]
    )
    np.testing.assert_array_equal(answer["sum"], np.full((2, 3), 8, np.float32))


def test_a_bound_on_the_batch_bounds_the_rows_of_a_run(tmp_path: Path) -> None:
    path = exported(
        tmp_path / "model.pt2",
        Cnn(),
        torch.zeros(2, 1, 8, 8),
        dynamic={0: torch.export.Dim("batch", max=16)},
    )
    bounded = contract.load(path).signature
    assert (bounded.has_batch_dimension, bounded.rows_max) == (True, 16)


def test_sizes_that_must_agree_are_the_caller_s_fault(tmp_path: Path) -> None:
    class Sum(torch.nn.Module):
        def forward(self, a: Any, b: Any) -> Any:
            return a + b

    batch = {0: torch.export.Dim("batch")}
    loaded = contract.load(
        exported(tmp_path / "model.pt2", Sum(), torch.ones(2, 3), torch.ones(2, 3), dynamic=batch)
    )
    with pytest.raises(errors.InvalidRequest, match="Guard failed"):
        loaded.predict({"a": np.ones((2, 3), np.float32), "b": np.ones((4, 3), np.float32)}, ())


def test_bf16_travels_as_its_bits(tmp_path: Path) -> None:
    loaded = contract.load(
        exported(tmp_path / "model.pt2", torch.nn.ReLU(), torch.ones(2, 3, dtype=torch.bfloat16))
    )
    assert loaded.signature.inputs[0].datatype == "BF16"
    bits = torch.tensor([[1.5, -2.0, 3.0]], dtype=torch.bfloat16).view(torch.uint16).numpy()
    answer = loaded.predict({loaded.signature.inputs[0].name: bits}, ())["output"]
    assert torch.from_numpy(answer).view(torch.bfloat16).tolist() == [[1.5, 0.0, 3.0]]


def test_pickled_weights_are_code_that_must_be_trusted(tmp_path: Path) -> None:
    path = exported(tmp_path / "model.pt2", Cnn(), torch.zeros(2, 1, 8, 8))
    rewritten(
        path,
        lambda name, content: (
            content.replace(b'"use_pickle": false', b'"use_pickle": true')
            if "weights" in name
            else content
        ),
    )
    with pytest.raises(errors.LoadFailed, match=r"holds code \(weight_0.* set trust: true"):
        contract.load(path)


def test_a_pickle_among_the_example_inputs_must_be_trusted(tmp_path: Path) -> None:
    path = exported(tmp_path / "model.pt2", Cnn(), torch.zeros(2, 1, 8, 8))
    rewritten(
        path,
        lambda name, content: b"cos\nsystem\n(S'true'\ntR." if "sample_inputs" in name else content,
    )
    with pytest.raises(errors.LoadFailed, match="sample_inputs"):
        contract.load(path)


def test_a_program_that_writes_to_its_buffers_runs_one_request_at_a_time(tmp_path: Path) -> None:
    class Total(torch.nn.Module):
        total: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(1, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total.copy_(x.sum(0, keepdim=True))
            return self.total

    loaded = contract.load(exported(tmp_path / "model.pt2", Total(), torch.ones(2, 3)))
    assert not loaded.capabilities.is_reentrant
    name = loaded.signature.inputs[0].name
    first = loaded.predict({name: np.ones((2, 3), np.float32)}, ())["output"]
    loaded.predict({name: np.full((2, 3), 4, np.float32)}, ())
    assert first.tolist() == [[2, 2, 2]]


def test_a_program_that_changes_what_it_made_runs_in_several_threads(tmp_path: Path) -> None:
    class Changing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 3)
            self.norm = torch.nn.BatchNorm1d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = torch.relu_(self.norm(self.linear(x)))
            answer[:, 0] = 0
            answer += self.linear.bias
            return answer

    loaded = contract.load(exported(tmp_path / "model.pt2", Changing(), torch.ones(2, 3)))
    assert loaded.capabilities.is_reentrant
