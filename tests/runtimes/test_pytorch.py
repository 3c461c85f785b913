from __future__ import annotations

import json
import logging
import warnings
import zipfile

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from meshserve import errors
from meshserve.core.values import model
from tests.runtimes import contract

DIGITS = load_digits().images[:5, None].astype(np.float32)
IMAGES = model.TensorSpec("images", "FP32", (-1, 1, 8, 8))
DECLARED = {"inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]}


class Cnn(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
        )

    def forward(self, images):
        return self.layers(images)


def scripted(path, module, **extra):
    """As a user saves it, whose tests don't turn warnings into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(
            torch.jit.script(module.eval()),
            path,
            _extra_files={name: json.dumps(content) for name, content in extra.items()},
        )
    return path


def exported(path, module, *arguments, dynamic="auto", **keywords):
    batch = {0: torch.export.Dim.DYNAMIC} if dynamic == "auto" else dynamic
    shapes = tuple(batch for _ in arguments) if arguments else None
    torch.export.save(
        torch.export.export(module.eval(), arguments, keywords, dynamic_shapes=shapes), path
    )
    return path


@pytest.fixture(scope="module", params=["pt", "pt2"])
def sample(request, tmp_path_factory):
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
def test_broken_files_are_refused(sample):
    count = 30 if sample.path.suffix == ".pt" else 8
    assert contract.survivors(sample, count=count)["refused"] >= 2 * count


def test_an_undeclared_torchscript_says_how_to_declare(tmp_path):
    path = scripted(tmp_path / "model.pt", Cnn())
    with pytest.raises(
        errors.LoadFailed, match=r"declare inputs: \[\{name, datatype, shape\}\].*signature\.json"
    ):
        contract.load(path)
    assert contract.load(path, inputs=(IMAGES,)).signature.outputs == (
        model.TensorSpec("output", "FP32", (-1, 10)),
    )


@pytest.mark.parametrize("shape", [(-1, 1, 9, 9), (-1, 64)])
def test_a_declaration_that_the_program_refuses_is_refused_with_its_words(tmp_path, shape):
    path = scripted(tmp_path / "model.pt", Cnn())
    with pytest.raises(
        errors.LoadFailed,
        match=r"does not take its inputs.*(shapes cannot be multiplied|Expected 3D)",
    ):
        contract.load(path, inputs=(model.TensorSpec("images", "FP32", shape),))


@pytest.mark.parametrize("content", [[], {"inputs": [{"name": "x"}]}, {"inputs": 3}], ids=str)
def test_a_broken_signature_file_is_refused(tmp_path, content):
    path = scripted(tmp_path / "model.pt", Cnn(), **{"signature.json": content})
    with pytest.raises(errors.LoadFailed, match=r"signature\.json"):
        contract.load(path)


def test_several_outputs_can_be_named(tmp_path):
    class Two(torch.nn.Module):
        def forward(self, a, b):
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
    given = loaded.predict({"a": a, "b": b}, ())
    np.testing.assert_array_equal(given["sum"], a + b)
    np.testing.assert_array_equal(given["dot"], (a * b).sum(1))


def test_names_other_than_forward_s_go_by_place(tmp_path):
    class Less(torch.nn.Module):
        def forward(self, a, b):
            return a - b

    inputs = tuple(model.TensorSpec(name, "FP32", (-1,)) for name in ("INPUT__0", "INPUT__1"))
    loaded = contract.load(scripted(tmp_path / "model.pt", Less()), inputs=inputs)
    one = np.ones(2, np.float32)
    assert loaded.predict({"INPUT__0": 3 * one, "INPUT__1": one}, ())["output"].tolist() == [2, 2]
    with pytest.raises(errors.LoadFailed, match="forward takes a, b, but 1 inputs are declared"):
        contract.load(tmp_path / "model.pt", inputs=inputs[:1])


def test_an_argument_that_is_no_tensor_is_refused(tmp_path):
    class Scaled(torch.nn.Module):
        def forward(self, x, by: float):
            return x * by

    with pytest.raises(errors.LoadFailed, match="'by' of type float"):
        contract.load(
            scripted(tmp_path / "model.pt", Scaled()),
            inputs=(model.TensorSpec("x", "FP32", (-1,)),),
        )


def test_a_dictionary_names_its_outputs_and_arguments_may_nest(tmp_path):
    class Named(torch.nn.Module):
        def forward(self, pair, *, scale):
            return {"sum": (pair[0] + pair[1]) * scale, "first": pair[0]}

    row = torch.ones(2, 3)
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Named(), ((row, row),), {"scale": row}), path)
    loaded = contract.load(path)
    assert [said.name for said in loaded.signature.outputs] == ["sum", "first"]
    assert [said.shape for said in loaded.signature.inputs] == [(2, 3)] * 3
    assert not loaded.signature.can_join
    given = loaded.predict(
        {said.name: np.full((2, 3), 2, np.float32) for said in loaded.signature.inputs}, ["sum"]
    )
    np.testing.assert_array_equal(given["sum"], np.full((2, 3), 8, np.float32))


def test_a_bound_on_the_batch_below_the_spec_s_turns_batching_off(tmp_path):
    path = exported(
        tmp_path / "model.pt2",
        Cnn(),
        torch.zeros(2, 1, 8, 8),
        dynamic={0: torch.export.Dim("batch", max=16)},
    )
    assert not contract.load(path).signature.can_join
    assert contract.load(path, max_batch_size=16).signature.can_join


def test_sizes_that_must_agree_are_the_caller_s_fault(tmp_path):
    class Sum(torch.nn.Module):
        def forward(self, a, b):
            return a + b

    batch = {0: torch.export.Dim("batch")}
    loaded = contract.load(
        exported(tmp_path / "model.pt2", Sum(), torch.ones(2, 3), torch.ones(2, 3), dynamic=batch)
    )
    with pytest.raises(errors.InvalidRequest, match="Guard failed"):
        loaded.predict({"a": np.ones((2, 3), np.float32), "b": np.ones((4, 3), np.float32)}, ())


def test_what_the_program_raises_is_told_in_one_line(tmp_path):
    class Picky(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.embedding(x, torch.ones(3, 2))

    loaded = contract.load(
        scripted(tmp_path / "model.pt", Picky()), inputs=(model.TensorSpec("x", "INT64", (-1,)),)
    )
    with pytest.raises(errors.ModelRaised) as raised:
        loaded.predict({"x": np.array([7])}, ())
    assert raised.value.message == "index out of range in self"


def test_bf16_travels_as_its_bits(tmp_path):
    loaded = contract.load(
        exported(tmp_path / "model.pt2", torch.nn.ReLU(), torch.ones(2, 3, dtype=torch.bfloat16))
    )
    assert loaded.signature.inputs[0].datatype == "BF16"
    bits = torch.tensor([[1.5, -2.0, 3.0]], dtype=torch.bfloat16).view(torch.uint16).numpy()
    given = loaded.predict({loaded.signature.inputs[0].name: bits}, ())["output"]
    assert torch.from_numpy(given).view(torch.bfloat16).tolist() == [[1.5, 0.0, 3.0]]


@pytest.mark.parametrize("what", [Cnn().state_dict(), Cnn()], ids=["weights", "module"])
def test_weights_without_a_program_are_told_apart(tmp_path, what):
    torch.save(what, tmp_path / "model.pt")
    with pytest.raises(errors.LoadFailed, match="holds weights or a pickled module, not a program"):
        contract.load(tmp_path)


def rewritten(path, change):
    """The archive with each member's content changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))
    return path


def test_pickled_weights_are_code_that_must_be_trusted(tmp_path):
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


def test_a_pickle_among_the_example_inputs_must_be_trusted(tmp_path):
    path = exported(tmp_path / "model.pt2", Cnn(), torch.zeros(2, 1, 8, 8))
    rewritten(
        path,
        lambda name, content: b"cos\nsystem\n(S'true'\ntR." if "sample_inputs" in name else content,
    )
    with pytest.raises(errors.LoadFailed, match="sample_inputs"):
        contract.load(path)


def test_loading_keeps_torch_quiet_and_single_threaded(sample, caplog):
    sample.load()
    assert torch.get_num_threads() == 1
    assert logging.getLogger("torch.export").level == logging.CRITICAL
    assert caplog.text == ""
