from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.worker.models import load_window, loader
from tests.worker.models.test_load_queue import NEED, Loaded, recipe


def spec(**fields: Any) -> model.ModelSpec:
    return model.ModelSpec(model.ModelId("m"), "u", runtime="python", trust=True, **fields)


def test_equal_models_have_one_recipe(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("class Model: ...")
    artifact = model_runtime.Artifact(tmp_path, "sha256:1", 1)
    key = loader.make_recipe(spec(), artifact, "cpu").key
    assert (
        loader.make_recipe(spec(pinned=True, pool="other", load_timeout_s=3), artifact, "cpu").key
        == key
    )
    tensors = (model.TensorSpec("x", "FP32", (1,)),)
    others = [
        spec(options={"a": 1}),
        spec(inputs=tensors),
        spec(batching=False),
        spec(max_batch_size=2),
        spec(isolate="process"),
    ]
    keys = {loader.make_recipe(other, artifact, "cpu").key for other in others} | {
        loader.make_recipe(spec(), artifact, "cuda").key
    }
    assert len(keys | {key}) == 7


@pytest.mark.parametrize(
    ("own", "of_pool", "is_isolated"),
    [
        ("", "none", False),
        ("", "process", True),
        ("none", "process", False),
        ("process", "none", True),
    ],
)
def test_a_model_says_where_it_runs_and_else_its_pool(
    tmp_path: Path, own: str, of_pool: str, is_isolated: bool
) -> None:
    artifact = model_runtime.Artifact(tmp_path, "sha256:1", 1)
    recipe_of = loader.make_recipe(spec(isolate=own), artifact, "cpu", of_pool)
    assert recipe_of.is_isolated is is_isolated


def test_an_unknown_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.LoadFailed, match="pytohn"):
        loader.make_recipe(
            model.ModelSpec(model.ModelId("m"), "u", runtime="pytohn"),
            model_runtime.Artifact(tmp_path, "d", 1),
            "cpu",
        )


def test_the_error_of_a_load_names_no_folder_of_the_server(tmp_path: Path) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"no model")
    broken = loader.make_recipe(
        model.ModelSpec(model.ModelId("m"), "u", runtime="onnx"),
        model_runtime.Artifact(file, "sha256:1", 8),
        "cpu",
    )
    with pytest.raises(errors.LoadFailed, match=r"broken\.onnx") as failed:
        loader.load(broken, NEED, load_window.LoadWindow(until_s=0.0))
    assert str(tmp_path) not in failed.value.message


class Slow(Loaded):
    def predict(self, _inputs: Any, _outputs: Any) -> Any:
        time.sleep(loader.SLOW_S)
        return super().predict({}, ())


def test_a_slow_model_is_timed_once() -> None:
    loaded_copy = loader.load(recipe(Slow), NEED, load_window.LoadWindow(until_s=0.0))
    assert isinstance(loaded_copy.loaded, Slow)
    assert loaded_copy.loaded.calls == 1
    assert loaded_copy.run_s is not None
    assert loaded_copy.run_s >= loader.SLOW_S
