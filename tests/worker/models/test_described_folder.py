from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.storage import content
from meshserve.worker.models import described_folder, described_model, loader
from tests.runtimes import mlserver_models, test_onnx

CONFIG = """
backend: "onnxruntime" max_batch_size: 4 default_model_filename: "net.onnx"
input { name: "x" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: 4 } }
output { name: "y" data_type: TYPE_FP32 dims: 4 label_filename: "labels.txt" }
"""


def net(file: Path, plus: float) -> Path:
    """Save y = x + plus."""
    file.parent.mkdir(parents=True, exist_ok=True)
    values = [("x", TensorProto.FLOAT, ["n", 4])], [("y", TensorProto.FLOAT, ["n", 4])]
    nodes: list[tuple[str, list[str], list[str], dict[str, object]]]
    nodes = [("Add", ["x", "b"], ["y"], {})]
    return test_onnx.save(file, nodes, *values, {"b": np.array([plus], np.float32)})


def spec_of(uri: Path, version: str = "1", **fields: Any) -> model.ModelSpec:
    spec = model.ModelSpec(model.ModelId("m", version), str(uri))
    return dataclasses.replace(spec, **fields)


def recipe(uri: Path, version: str = "1", **fields: object) -> loader.LoadRecipe:
    artifact = model_runtime.Artifact(uri, content.digest(uri), 1 << 20)
    return loader.make_recipe(spec_of(uri, version, **fields), artifact, "cpu")


def answer(recipe_: loader.LoadRecipe, shape: tuple[int, ...] = (1, 2, 2)) -> float:
    loaded = described_model.load(recipe_.runtime, recipe_.artifact, recipe_.spec, "cpu")
    return float(loaded.predict({"x": np.zeros(shape, np.float32)}, ())["y"][0, 0])


@pytest.fixture
def triton(tmp_path: Path) -> Path:
    (tmp_path / "config.pbtxt").write_text(CONFIG)
    (tmp_path / "labels.txt").write_text("a\nb\n")
    for version in (2, 3, 10):
        net(tmp_path / str(version) / "net.onnx", float(version))
    return tmp_path


def test_a_folder_of_triton_is_served_as_its_configuration_says(triton: Path) -> None:
    newest = recipe(triton)
    assert answer(newest) == 10
    assert answer(recipe(triton, "2")) == 2
    loaded = described_model.load(newest.runtime, newest.artifact, newest.spec, "cpu")
    assert loaded.signature.labels == (("y", ("a", "b")),)
    assert json.loads(described_model.config_text(newest.spec))["max_batch_size"] == 4
    assert newest.spec.max_batch_size == 4
    assert newest.stored.path == triton
    assert newest.artifact.size_bytes == (triton / "10" / "net.onnx").stat().st_size
    keys = {recipe(triton, version).key for version in ("1", "2", "3", "10")}
    assert len(keys) == 3


def test_a_version_policy_chooses(triton: Path) -> None:
    policy = "version_policy { specific { versions: [ 3 ] } }"
    (triton / "config.pbtxt").write_text(CONFIG + policy)
    assert answer(recipe(triton)) == 3
    assert answer(recipe(triton, "2")) == 3


def test_the_models_own_fields_count_more(triton: Path) -> None:
    inputs = (model.TensorSpec("x", "FP32", (-1, 4)),)
    changed = recipe(triton, inputs=inputs, max_batch_size=2, batching=True)
    assert (changed.spec.inputs, changed.spec.max_batch_size) == (inputs, 2)
    assert changed.spec.batching is True
    net(triton / "other.onnx", 5)
    chosen = recipe(triton, options={"file": "other.onnx"})
    assert (chosen.spec.description, chosen.artifact) == ("", chosen.stored)
    assert answer(chosen, (1, 4)) == 5


def test_a_folder_of_mlserver_is_read(tmp_path: Path) -> None:
    net(tmp_path / "files" / "net.onnx", 7)
    settings = {
        "name": "other",
        "implementation": "mlserver_onnx.OnnxModel",
        "parameters": {"uri": "./files/net.onnx"},
    }
    (tmp_path / "model-settings.json").write_text(json.dumps(settings))
    read = recipe(tmp_path)
    assert (read.spec.runtime, read.spec.id.name, answer(read, (1, 4))) == ("onnx", "m", 7)
    (tmp_path / "model-settings.json").rename(tmp_path / "files" / "model-settings.json")
    (tmp_path / "files").rename(tmp_path / "3")
    del settings["parameters"]
    (tmp_path / "3" / "model-settings.json").write_text(json.dumps(settings))
    assert answer(recipe(tmp_path), (1, 4)) == 7


def test_versions_alone_need_no_description(tmp_path: Path) -> None:
    net(tmp_path / "1" / "model.onnx", 1)
    net(tmp_path / "2" / "model.onnx", 2)
    assert answer(recipe(tmp_path), (1, 4)) == 1
    assert answer(recipe(tmp_path, "v9"), (1, 4)) == 2


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("config.pbtxt", "max_batch_size: x", "config.pbtxt: line 1"),
        ("config.pbtxt", "sequence_batching { }", "sequence_batching is not offered"),
        ("config.pbtxt", "version_policy { specific { versions: 9 } }", "serves none of"),
        ("config.pbtxt", 'output { name: "y" data_type: 11 label_filename: "l" }', "no file 'l'"),
        ("model-settings.json", "[]", "model-settings.json: expected an object"),
        ("model-settings.json", '{"parameters": {"uri": "../x"}}', "outside"),
        ("model-settings.json", '{"parameters": {"uri": "x"}}', "does not exist"),
        ("model-settings.json", '{"parameters": {"uri": "s3://b/x"}}', "give that as"),
    ],
)
def test_a_description_that_can_not_be_followed_is_refused(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    net(tmp_path / "1" / "model.onnx", 1)
    (tmp_path / name).write_text(text)
    with pytest.raises(errors.LoadFailed, match=words):
        recipe(tmp_path)


def test_other_artifacts_are_left_alone(tmp_path: Path) -> None:
    file = net(tmp_path / "net.onnx", 1)
    scanned = spec_of(tmp_path, origin=model.Origin.parse("repository:/m"))
    artifact = model_runtime.Artifact(tmp_path, "d", 1)
    (tmp_path / "config.pbtxt").write_text("broken")
    assert described_folder.resolve(scanned, artifact) == (scanned, artifact)
    alone = model_runtime.Artifact(file, "d", 1)
    assert described_folder.resolve(spec_of(file), alone)[1] is alone


def test_a_class_of_mlservers_is_loaded_with_its_settings(tmp_path: Path) -> None:
    mlserver_models.write(tmp_path, "Sees", mlserver_models.SEES, parameters={"uri": "./files"})
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "w.bin").write_bytes(b"1")
    one = recipe(tmp_path, trust=True)
    assert (one.runtime.name, one.artifact.path) == ("python", tmp_path)
    loaded = described_model.load(one.runtime, one.artifact, one.spec, "cpu")
    assert list(loaded.predict({"x": np.ones(1)}, ())) == ["seen"]
    loaded.close()
    # A class sees its model's name, so two models of equal bytes share no copy.
    other = dataclasses.replace(spec_of(tmp_path, trust=True), id=model.ModelId("other"))
    assert loader.make_recipe(other, one.stored, "cpu").key != one.key


def test_a_description_from_elsewhere_keeps_the_labels_of_the_folder(triton: Path) -> None:
    config = {"backend": "onnxruntime", "max_batch_size": 4, "default_model_filename": "net.onnx"}
    description = json.dumps({"config": config, "labels": {}})
    merged = recipe(triton, description=description).spec
    assert json.loads(merged.description)["labels"] == {"y": ["a", "b"]}
    (triton / "config.pbtxt").write_text("what is replaced need not be right")
    merged = recipe(triton, description=description).spec
    assert json.loads(merged.description)["labels"] == {}
