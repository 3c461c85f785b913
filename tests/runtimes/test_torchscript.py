from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import runtime_lookup
from tests.runtimes import contract
from tests.runtimes.torch_files import IMAGES, Cnn, scripted


def test_an_undeclared_torchscript_is_the_judge_of_its_inputs(tmp_path: Path) -> None:
    path = scripted(tmp_path / "model.pt", Cnn())
    loaded = contract.load(path)
    assert loaded.signature.inputs == (model.TensorSpec("images", "", ()),)
    assert loaded.signature.has_open_inputs
    assert not loaded.signature.has_batch_dimension
    images = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32)
    with torch.inference_mode():
        right = Cnn().eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(loaded.predict({"images": images}, ())["output"], right)
    np.testing.assert_array_equal(loaded.predict({"INPUT__0": images}, ())["output"], right)
    with pytest.raises(errors.InvalidRequest, match="no input 'image'; it has: images"):
        loaded.predict({"image": images}, ())
    with pytest.raises(errors.InvalidRequest, match="type"):
        loaded.predict({"images": images.astype(np.float64)}, ())
    assert contract.load(path, inputs=(IMAGES,)).signature.outputs == (
        model.TensorSpec("output", "FP32", (-1, 10)),
    )


@pytest.mark.parametrize("content", [[], {"inputs": [{"name": "x"}]}, {"inputs": 3}], ids=str)
def test_a_broken_signature_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = scripted(tmp_path / "model.pt", Cnn(), **{"signature.json": content})
    with pytest.raises(errors.LoadFailed, match=r"signature\.json"):
        contract.load(path)


def test_several_outputs_can_be_named(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return a + b, (a * b).sum(1)

    signature = {
        "inputs": [
            {"name": "b", "datatype": "FP64", "shape": [-1, 3]},
            {"name": "a", "datatype": "FP64", "shape": [-1, 3]},
        ],
        "outputs": [
            {"name": "sum", "datatype": "FP64", "shape": [-1, 3]},
            {"name": "dot", "datatype": "FP64", "shape": [-1]},
        ],
    }
    loaded = contract.load(scripted(tmp_path / "model.pt", Two(), **{"signature.json": signature}))
    a, b = np.arange(6.0).reshape(2, 3), np.ones((2, 3)) * 3
    answer = loaded.predict({"a": a, "b": b}, ())
    np.testing.assert_array_equal(answer["sum"], a + b)
    np.testing.assert_array_equal(answer["dot"], (a * b).sum(1))


def test_names_other_than_those_of_forward_go_by_position(tmp_path: Path) -> None:
    class Less(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a - b

    inputs = tuple(model.TensorSpec(name, "FP32", (-1,)) for name in ("INPUT__0", "INPUT__1"))
    loaded = contract.load(scripted(tmp_path / "model.pt", Less()), inputs=inputs)
    one = np.ones(2, np.float32)
    assert loaded.predict({"INPUT__0": 3 * one, "INPUT__1": one}, ())["output"].tolist() == [2, 2]
    with pytest.raises(errors.LoadFailed, match="forward takes a, b, but 1 inputs are declared"):
        contract.load(tmp_path / "model.pt", inputs=inputs[:1])


def test_an_argument_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Scaled(torch.nn.Module):
        def forward(self, x: torch.Tensor, by: float) -> torch.Tensor:
            return x * by

    with pytest.raises(errors.LoadFailed, match="'by' of type float"):
        contract.load(
            scripted(tmp_path / "model.pt", Scaled()),
            inputs=(model.TensorSpec("x", "FP32", (-1,)),),
        )


ROWS = model.TensorSpec("x", "FP32", (-1, 4))


class Scratch(torch.nn.Module):
    """Writes what it gives to a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = torch.nn.Buffer(torch.zeros(64, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.rows[: x.size(0)]
        answer.copy_(x * 2)
        return answer


class Out(torch.nn.Module):
    """Has an operator write to a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = torch.nn.Buffer(torch.zeros(64, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.rows[: x.size(0)]
        torch.mul(x, 2, out=answer)
        return answer


class Counter(torch.nn.Module):
    """Counts large inputs, in a branch that few inputs take."""

    def __init__(self) -> None:
        super().__init__()
        self.count = torch.nn.Buffer(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() > 1e9):
            self.count.add_(1)
        return x + self.count


class Last(torch.nn.Module):
    """Keeps its newest input as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = x
        return self.last * 2


class Plain(torch.nn.Module):
    """Changes only its activations, and has what changes in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(inplace=True)
        )
        self.sequence = torch.nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activations = self.layers(x)
        activations[:, 0] = 0
        answer: torch.Tensor = self.sequence(activations.unsqueeze(1))[0]
        return answer


@pytest.mark.parametrize(
    "module", [Scratch(), Out(), Counter(), Last()], ids=lambda m: type(m).__name__
)
def test_a_module_that_writes_to_itself_runs_one_request_at_a_time(
    tmp_path: Path, module: torch.nn.Module
) -> None:
    loaded = contract.load(scripted(tmp_path / "model.pt", module), inputs=(ROWS,))
    assert not loaded.capabilities.is_reentrant
    first = loaded.predict({"x": np.ones((2, 4), np.float32)}, ())["output"]
    kept = first.copy()
    loaded.predict({"x": np.full((2, 4), 7, np.float32)}, ())
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("module", [Plain(), Cnn()], ids=lambda m: type(m).__name__)
def test_a_module_that_leaves_itself_alone_runs_in_several_threads(
    tmp_path: Path, module: torch.nn.Module
) -> None:
    inputs = (IMAGES,) if isinstance(module, Cnn) else (ROWS,)
    loaded = contract.load(scripted(tmp_path / "model.pt", module), inputs=inputs)
    assert loaded.capabilities.is_reentrant


class Normalizing(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.layers(x)
        return answer


MATRIX = (model.TensorSpec("x", "FP32", (-1, 4)),)


@pytest.mark.parametrize("evaluates", [False, True])
def test_a_module_saved_in_training_answers_as_its_library_loads_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, evaluates: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Normalizing().train()), tmp_path / "model.pt")
        plain = torch.jit.load(tmp_path / "model.pt")
    if evaluates:
        plain.eval()
    loaded = contract.load(tmp_path, inputs=MATRIX, options={"eval": True} if evaluates else {})
    assert ("saved in training mode" in caplog.text) is not evaluates
    numbers = np.random.default_rng(0)
    for rows in (3, 5, 3):
        x = numbers.standard_normal((rows, 4)).astype(np.float32)
        with torch.inference_mode():
            right = plain(torch.from_numpy(x)).numpy()
        np.testing.assert_array_equal(loaded.predict({"x": x}, ())["output"], right)
    # In training it counts batches, so two runs at once would meet.
    assert loaded.capabilities.is_reentrant is evaluates
    artifact, spec = contract.artifact(tmp_path), contract.spec(inputs=MATRIX)
    reason = runtime_lookup.find(spec, artifact).find_row_mixing(loaded, artifact, spec)
    assert ("saved in training mode" in (reason or "")) is not evaluates


def test_other_options_are_named(tmp_path: Path) -> None:
    path = scripted(tmp_path / "model.pt", Cnn())
    with pytest.raises(errors.LoadFailed, match="option 'evaluate' is not known here"):
        contract.load(path, options={"evaluate": True})
