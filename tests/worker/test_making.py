from __future__ import annotations

import time

import pytest

from meshserve import errors
from meshserve.core import model, ports
from meshserve.worker import making
from tests.worker.test_loading import NEED, Loaded, recipe


def spec(**fields):
    return model.ModelSpec(model.ModelId("m"), "u", runtime="python", trust=True, **fields)


def test_equal_models_have_one_recipe(tmp_path):
    (tmp_path / "model.py").write_text("class Model: ...")
    artifact = ports.Artifact(tmp_path, "sha256:1", 1)
    key = making.recipe(spec(), artifact, "cpu").key
    assert making.recipe(spec(pinned=True, pool="other", load_timeout_s=3), artifact, "cpu").key == key
    tensors = (model.TensorSpec("x", "FP32", (1,)),)
    others = [spec(options={"a": 1}), spec(inputs=tensors), spec(batching=False), spec(max_batch_size=2)]
    keys = {making.recipe(each, artifact, "cpu").key for each in others} | {making.recipe(spec(), artifact, "cuda").key}
    assert len(keys | {key}) == 6


def test_nobody_loads_what_nobody_can(tmp_path):
    with pytest.raises(errors.LoadFailed, match="pytohn"):
        making.recipe(model.ModelSpec(model.ModelId("m"), "u", runtime="pytohn"), ports.Artifact(tmp_path, "d", 1), "cpu")


class Slow(Loaded):
    def predict(self, _inputs, _outputs):
        time.sleep(making.SLOW_S)
        return super().predict({}, ())


def test_one_run_of_a_slow_model_tells_enough():
    made = making.made(recipe(Slow), NEED, making.Window(until_s=0.0))
    assert made.loaded.calls == 1
    assert made.run_s >= making.SLOW_S
