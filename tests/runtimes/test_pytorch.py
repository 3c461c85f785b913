from __future__ import annotations

import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from meshserve import errors
from meshserve.core.values import model
from tests.runtimes import contract
from tests.runtimes.torch_files import DECLARED, Cnn, exported, scripted

DIGITS = load_digits().images[:5, None].astype(np.float32)


@pytest.fixture(scope="module", params=["pt", "pt2"])
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("torch") / f"digits.{request.param}"
    module = Cnn().eval()
    if request.param == "pt":
        scripted(path, module, **{"signature.json": DECLARED})
    else:
        exported(path, module, torch.zeros(2, 1, 8, 8))
    with torch.inference_mode():
        answers = {"output": module(torch.from_numpy(DIGITS)).numpy()}
    return contract.Sample("torch", path, {"images": DIGITS}, answers, library="torch")


class TestContract(contract.RuntimeContract):
    """TorchScript and exported programs."""


@pytest.mark.edge
def test_broken_files_are_refused(sample: contract.Sample) -> None:
    count = 30 if sample.path.suffix == ".pt" else 8
    assert contract.survivors(sample, count=count)["refused"] >= 2 * count


@pytest.mark.parametrize("shape", [(-1, 1, 9, 9), (-1, 64)])
def test_what_a_program_refuses_is_told_to_callers_in_its_words(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = scripted(tmp_path / "model.pt", Cnn())
    loaded = contract.load(path, inputs=(model.TensorSpec("images", "FP32", shape),))
    assert loaded.signature.outputs == ()
    with pytest.raises(errors.InvalidRequest) as refused:
        loaded.predict({"images": np.ones((1, *shape[1:]), np.float32)}, ())
    assert re.match("mat1 and mat2 shapes cannot be multiplied|Expected 3D", refused.value.message)
    assert "\n" not in refused.value.message


def test_errors_of_the_program_are_one_line(tmp_path: Path) -> None:
    class Picky(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.embedding(x, torch.ones(3, 2))

    loaded = contract.load(
        scripted(tmp_path / "model.pt", Picky()), inputs=(model.TensorSpec("x", "INT64", (-1,)),)
    )
    with pytest.raises(errors.InvalidRequest) as raised:
        loaded.predict({"x": np.array([7])}, ())
    assert raised.value.message == "index out of range in self"


@pytest.mark.parametrize("what", [Cnn().state_dict(), Cnn()], ids=["weights", "module"])
def test_weights_without_a_program_are_refused(tmp_path: Path, what: Any) -> None:
    torch.save(what, tmp_path / "model.pt")
    with pytest.raises(errors.LoadFailed, match="holds weights or a pickled module, not a program"):
        contract.load(tmp_path)


def test_loading_keeps_torch_quiet_and_single_threaded(
    sample: contract.Sample, caplog: pytest.LogCaptureFixture
) -> None:
    sample.load()
    # As in a thread that runs models: other tests may have used torch in this one before.
    with ThreadPoolExecutor(1) as fresh_thread:
        assert fresh_thread.submit(torch.get_num_threads).result() == 1
    assert logging.getLogger("torch.export").level == logging.CRITICAL
    assert caplog.text == ""


class Parts(torch.nn.Module):
    """A program that refuses rows whose lengths it can not cut into whole parts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] % 11 != 0:
            raise RuntimeError("lengths are multiples of 11")
        return x.reshape(x.shape[0], -1, 11).sum(2)


X = model.TensorSpec("x", "FP32", (-1, -1))


def test_outputs_are_open_if_made_up_inputs_are_refused(
    tmp_path: Path,
) -> None:
    loaded = contract.load(scripted(tmp_path / "m.pt", Parts()), inputs=(X,))
    assert (loaded.signature.outputs, loaded.probe) == ((), None)
    with pytest.raises(errors.InvalidRequest, match="no output 'z'; it has: output"):
        loaded.predict({"x": np.ones((2, 22), np.float32)}, ("z",))
    answer = loaded.predict({"x": np.ones((2, 22), np.float32)}, ("output",))
    assert answer["output"].tolist() == [[11, 11], [11, 11]]
    assert loaded.signature.has_open_outputs


def test_a_sample_tells_what_made_up_inputs_do_not(tmp_path: Path) -> None:
    path = scripted(tmp_path / "m.pt", Parts())
    sample = json.dumps({"x": [[1.0] * 22] * 3})
    loaded = contract.load(path, inputs=(X,), sample=sample)
    assert loaded.signature.outputs == (model.TensorSpec("output", "FP32", (-1, -1)),)
    assert loaded.signature.has_batch_dimension
    assert loaded.probe is not None
    assert loaded.probe["x"].shape == (1, 22)
    with pytest.raises(errors.LoadFailed, match="refuses the sample: lengths are multiples of 11"):
        contract.load(path, inputs=(X,), sample=json.dumps({"x": [[1.0] * 5]}))


def test_a_model_that_refuses_made_up_inputs_is_served_if_its_outputs_are_declared(
    tmp_path: Path,
) -> None:
    path = scripted(tmp_path / "m.pt", Parts())
    declared = model.TensorSpec("sums", "FP32", (-1, -1))
    loaded = contract.load(path, inputs=(X,), outputs=(declared,))
    assert not loaded.signature.has_batch_dimension
    answer = loaded.predict({"x": np.ones((2, 22), np.float32)}, ())
    assert answer["sums"].tolist() == [[11, 11], [11, 11]]
    with pytest.raises(errors.InvalidRequest) as refused:
        loaded.predict({"x": np.ones((2, 5), np.float32)}, ())
    assert refused.value.message == "lengths are multiples of 11"


def test_declared_outputs_that_the_first_answer_contradicts_are_told(tmp_path: Path) -> None:
    path = scripted(tmp_path / "m.pt", Parts())
    loaded = contract.load(
        path, inputs=(X,), outputs=(model.TensorSpec("sums", "INT64", (-1, -1)),)
    )
    with pytest.raises(errors.ModelRaised, match="declared INT64, but the model has FP32"):
        loaded.predict({"x": np.ones((2, 22), np.float32)}, ())


def test_a_least_length_of_a_thousand_is_found(tmp_path: Path) -> None:
    convolution = torch.nn.Conv1d(1, 2, 400, stride=160)
    path = scripted(tmp_path / "m.pt", convolution)
    loaded = contract.load(path, inputs=(model.TensorSpec("x", "FP32", (-1, 1, -1)),))
    assert loaded.signature.outputs[0].shape == (-1, 2, -1)
