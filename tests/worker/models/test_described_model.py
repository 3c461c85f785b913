from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnxruntime
import pytest
import torch
import xgboost
from onnx import TensorProto

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.runtimes import signatures
from tests.runtimes import test_onnx, torch_files
from tests.worker.models import described_folders

RNG = np.random.default_rng(0)


def tensor(kind: str, name: str, dims: Sequence[int], more: str = "") -> str:
    return f'{kind} {{ name: "{name}" data_type: TYPE_FP32 dims: {list(dims)} {more} }}\n'


def folder(tmp_path: Path, config: str) -> Path:
    """Write config.pbtxt and return the folder of version 1."""
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "config.pbtxt").write_text(config)
    return tmp_path / "m" / "1"


def predict(loaded: model_runtime.LoadedModel, *outputs: str, **inputs: Any) -> Mapping[str, Any]:
    return loaded.predict(
        {name: np.array(value, np.float32) for name, value in inputs.items()}, outputs
    )


class Difference(torch.nn.Module):
    def forward(self, minuend: torch.Tensor, subtrahend: torch.Tensor) -> torch.Tensor:
        return minuend - subtrahend


class Three(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return x + 1, x + 2, x + 3


@pytest.mark.parametrize("is_exported", [False, True])
def test_numbers_in_the_names_of_inputs_are_their_places(tmp_path: Path, is_exported: bool) -> None:
    config = (
        'backend: "pytorch"\n'
        + tensor("input", "IN__1", [2])
        + tensor("input", "IN__0", [2])
        + tensor("output", "OUT__0", [2])
    )
    file = folder(tmp_path, config) / ("model.pt2" if is_exported else "model.pt")
    if is_exported:
        torch_files.exported(file, Difference(), torch.zeros(2), torch.zeros(2), dynamic={})
    else:
        torch_files.scripted(file, Difference())
    loaded = described_folders.load(tmp_path)
    answer = predict(loaded, IN__0=[5, 6], IN__1=[1, 1])
    np.testing.assert_array_equal(answer["OUT__0"], [4, 5])


@pytest.mark.parametrize(
    "names", [("OUT__2", "OUT__0", "OUT__1"), ("OUT__1",), ("OUT__2", "OUT__0")]
)
def test_numbers_in_the_names_of_outputs_are_their_places(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    config = 'platform: "pytorch_libtorch"\n' + tensor("input", "INPUT__0", [2])
    config += "".join(tensor("output", name, [2]) for name in names)
    torch_files.scripted(folder(tmp_path, config) / "model.pt", Three())
    answer = predict(described_folders.load(tmp_path), INPUT__0=[10, 20])
    assert list(answer) == list(names)
    for name, array in answer.items():
        np.testing.assert_array_equal(array, np.array([10, 20], np.float32) + int(name[-1]) + 1)


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        (("IN__0", "IN__2"), ("OUT__0",), "last one is number 1"),
        (("IN__0", "IN__0"), ("OUT__0",), "same name|number 0"),
        (("IN__1",), ("OUT__0",), "forward takes"),
        (("minuend", "other"), ("OUT__0",), "'other' does not exist"),
        (("IN__0", "IN__1"), ("OUT__1",), "last one is number 0"),
    ],
)
def test_names_that_fit_no_place_are_refused(
    tmp_path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], words: str
) -> None:
    config = 'backend: "pytorch"\n'
    config += "".join(tensor("input", name, [2]) for name in inputs)
    config += "".join(tensor("output", name, [2]) for name in outputs)
    torch_files.scripted(folder(tmp_path, config) / "model.pt", Difference())
    with pytest.raises(errors.LoadFailed, match=words):
        described_folders.load(tmp_path)


def onnx_file(path: Path, shape: list[Any]) -> Path:
    """Save y = -x beside z = x."""
    return test_onnx.save(
        path,
        [("Neg", ["x"], ["y"], {}), ("Identity", ["x"], ["z"], {})],
        [("x", TensorProto.FLOAT, shape)],
        [("y", TensorProto.FLOAT, shape), ("z", TensorProto.FLOAT, shape)],
    )


@pytest.mark.parametrize(
    ("rows_max", "own", "dims", "reshape", "sent"),
    [
        (0, [1, 3, 8, 8], [3, 8, 8], [1, 3, 8, 8], (3, 8, 8)),
        (0, [], [1], [], (1,)),
        (4, ["n"], [1], [], (3, 1)),
        (4, ["n", 2, 6], [3, 4], [2, 6], (2, 3, 4)),
        (4, ["n", "a", 6], [-1, 2, 3], [-1, 6], (2, 5, 2, 3)),
        (0, ["a", 1, "b", 4], [-1, -1, 2, 2], [-1, 1, -1, 4], (5, 3, 2, 2)),
        (0, ["a", "b"], [-1, 1, -1], [-1, -1], (5, 1, 3)),
    ],
)
def test_reshape_is_applied_both_ways(
    tmp_path: Path,
    rows_max: int,
    own: list[Any],
    dims: list[int],
    reshape: list[int],
    sent: tuple[int, ...],
) -> None:
    other = f"reshape {{ shape: {reshape} }}"
    config = f'backend: "onnxruntime" max_batch_size: {rows_max}\n'
    config += tensor("input", "x", dims, other) + tensor("output", "y", dims, other)
    file = onnx_file(folder(tmp_path, config) / "model.onnx", own)
    loaded = described_folders.load(tmp_path)
    expected_shape = [-1, *dims] if rows_max else dims
    assert described_folders.shapes(loaded.signature.inputs) == {"x": expected_shape}
    assert described_folders.shapes(loaded.signature.outputs) == {"y": expected_shape}
    array = RNG.normal(size=sent).astype(np.float32)
    rows = sent[:1] if rows_max else ()
    free = iter(size for size, dim in zip(sent[len(rows) :], dims, strict=True) if dim < 0)
    own_shape = rows + tuple(next(free) if size < 0 else size for size in reshape)
    session = onnxruntime.InferenceSession(str(file))
    (native,) = session.run(["y"], {"x": array.reshape(own_shape)})
    answer = predict(loaded, x=array)["y"]
    assert answer.shape == sent
    np.testing.assert_array_equal(answer, native.reshape(sent))
    if loaded.probe is not None:
        loaded.predict(loaded.probe, ())


def test_a_scalar_is_declared_as_one_element(tmp_path: Path) -> None:
    config = (
        'platform: "onnxruntime_onnx"\n' + tensor("input", "x", [1]) + tensor("output", "y", [1])
    )
    onnx_file(folder(tmp_path, config) / "model.onnx", [])
    loaded = described_folders.load(tmp_path)
    answer = predict(loaded, x=[3])
    np.testing.assert_array_equal(answer["y"], [-3])
    assert list(answer) == ["y"]


def test_rows_are_bounded_and_equal_as_the_configuration_says(tmp_path: Path) -> None:
    config = 'backend: "pytorch" max_batch_size: 2\n'
    config += tensor("input", "minuend", [2]) + tensor("input", "subtrahend", [2])
    config += tensor("output", "OUT__0", [2])
    torch_files.scripted(folder(tmp_path, config) / "model.pt", Difference())
    loaded = described_folders.load(tmp_path)
    two, three, one = np.ones((2, 2)), np.ones((3, 2)), np.ones((1, 2))
    assert predict(loaded, minuend=two, subtrahend=two)["OUT__0"].shape == (2, 2)
    with pytest.raises(errors.InvalidRequest, match="batch-size must be <= 2 for 'm', 3 came"):
        predict(loaded, minuend=three, subtrahend=three)
    with pytest.raises(errors.InvalidRequest, match="'subtrahend' has 1 rows"):
        predict(loaded, minuend=two, subtrahend=one)


def test_a_batch_dimension_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    onnx_file(folder(tmp_path, 'backend: "onnxruntime" max_batch_size: 2') / "model.onnx", [1, 3])
    with pytest.raises(errors.LoadFailed, match=r"max_batch_size is 2, .*\[1, 3\]"):
        described_folders.load(tmp_path)


def test_labels_belong_to_the_signature(tmp_path: Path) -> None:
    config = tensor("input", "x", [2]) + tensor("output", "y", [2], 'label_filename: "names.txt"')
    version = folder(tmp_path, config)
    (version.parent / "names.txt").write_text("cat\ndög\n", encoding="utf-8")
    onnx_file(version / "model.onnx", [2])
    signature = described_folders.load(tmp_path).signature
    assert signature.labels == (("y", ("cat", "dög")),)
    assert not signature.has_batch_dimension


def test_a_scalar_like_tensor_keeps_all_but_its_last_dimension() -> None:
    assert signatures.is_one_element((1,), ())
    assert signatures.is_one_element((1, 1), ())
    assert not signatures.is_one_element((1, 2), ())
    assert not signatures.is_one_element((), ())
    assert not signatures.is_one_element((-1, 1, 1), (-1,))
    assert signatures.is_one_element((-1, 1), (-1,))
    assert not signatures.is_one_element((1, 2), (2,))
    assert not signatures.is_one_element((1,), (1,))


def test_a_python_model_of_triton_runs_in_its_folder(tmp_path: Path) -> None:
    config = 'backend: "python" max_batch_size: 4 dynamic_batching { }\n'
    config += tensor("input", "x", [2]) + tensor("input", "more", [2], "optional: true")
    config += tensor("output", "y", [2])
    (folder(tmp_path, config) / "model.py").write_text(
        "import triton_python_backend_utils as pb_utils\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        x = pb_utils.get_input_tensor_by_name(requests[0], 'x').as_numpy()\n"
        "        mean = pb_utils.Tensor('y', x - x.mean(axis=0))\n"
        "        return [pb_utils.InferenceResponse([mean])]\n"
    )
    loaded = described_folders.load(tmp_path)
    assert loaded.signature.has_batch_dimension
    assert not loaded.signature.can_join
    assert loaded.signature.optional == {"more"}
    answer = predict(loaded, x=[[1, 2], [3, 6]])
    np.testing.assert_array_equal(answer["y"], [[-1, -2], [1, 2]])
    loaded.close()


def test_an_optional_input_that_the_model_needs_is_refused(tmp_path: Path) -> None:
    config = 'platform: "pytorch_libtorch"\n' + tensor("input", "INPUT__0", [2], "optional: true")
    config += tensor("output", "OUT__0", [2])
    torch_files.scripted(folder(tmp_path, config) / "model.pt", Three())
    with pytest.raises(errors.LoadFailed, match=r"'INPUT__0' is optional .* the model needs it"):
        described_folders.load(tmp_path)


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_a_forest_of_fil_gives_what_its_configuration_says(tmp_path: Path, kind: str) -> None:
    rows = RNG.normal(size=(60, 4)).astype(np.float32)
    labels = (rows[:, 0] > 0).astype(int)
    if kind == "xgboost":
        matrix = xgboost.DMatrix(rows, labels)
        booster: Any = xgboost.train({"objective": "binary:logistic", "nthread": 1}, matrix, 3)
        scores, file = booster.predict(matrix), "xgboost.json"
    else:
        settings = {"objective": "binary", "verbose": -1, "num_threads": 1}
        booster = lightgbm.train(settings, lightgbm.Dataset(rows, labels), 3)
        scores, file = booster.predict(rows), "model.txt"
    for number, (dims, said, expected) in enumerate(
        [
            (1, ["output_class"], (scores > 0.5)[:, None]),
            (2, ["output_class", "predict_proba"], np.stack([1 - scores, scores], axis=1)),
            (1, [], scores[:, None]),
        ]
    ):
        config = 'backend: "fil" max_batch_size: 64\n' + tensor("input", "input__0", [4])
        config += tensor("output", "output__0", [dims])
        for name in said:
            config += f'parameters {{ key: "{name}" value {{ string_value: "true" }} }}\n'
        place = tmp_path / str(number)
        booster.save_model(str(folder(place, config) / file))
        answer = described_folders.load(place).predict({"input__0": rows}, ())["output__0"]
        np.testing.assert_allclose(answer, expected.astype(np.float32), rtol=1e-6)
        assert answer.dtype == np.float32
