from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import triton_completion
from tests.runtimes import contract

# After python_backend's example `auto_complete`.
ADDING = """
import json
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        config = auto_complete_model_config.as_dict()
        known = [tensor["name"] for tensor in config["input"]]
        for name, is_optional in (("INPUT0", False), ("INPUT1", True)):
            if name not in known:
                auto_complete_model_config.add_input(
                    {"name": name, "data_type": "TYPE_FP32", "dims": [4], "optional": is_optional}
                )
        auto_complete_model_config.add_output(
            {"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [4]}
        )
        auto_complete_model_config.set_max_batch_size(MAX_BATCH)
        if MAX_BATCH:
            auto_complete_model_config.set_dynamic_batching()
        return auto_complete_model_config

    def initialize(self, args):
        config = json.loads(args["model_config"])
        assert config["max_batch_size"] == MAX_BATCH
        assert pb_utils.get_output_config_by_name(config, "OUTPUT0")["dims"] == [4]

    def execute(self, requests):
        answers = []
        for request in requests:
            first = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
            other = pb_utils.get_input_tensor_by_name(request, "INPUT1")
            total = first + (0 if other is None else other.as_numpy())
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", total)]))
        return answers
"""


def spec_of(name: str, *shape: int) -> model.TensorSpec:
    return model.TensorSpec(name, "FP32", shape)


@pytest.mark.parametrize(("max_batch", "rows"), [(0, ()), (8, (-1,))])
def test_a_class_without_a_configuration_declares_its_tensors(
    tmp_path: Path, max_batch: int, rows: tuple[int, ...]
) -> None:
    (tmp_path / "model.py").write_text(ADDING.replace("MAX_BATCH", str(max_batch)))
    loaded = contract.load(tmp_path, trust=True)
    signature = loaded.signature
    assert signature.inputs == (spec_of("INPUT0", *rows, 4), spec_of("INPUT1", *rows, 4))
    assert signature.outputs == (spec_of("OUTPUT0", *rows, 4),)
    assert signature.optional == {"INPUT1"}
    assert not signature.has_open_inputs
    array = np.ones((3,) * len(rows) + (4,), np.float32)
    assert np.array_equal(loaded.predict({"INPUT0": array}, ())["OUTPUT0"], array)
    loaded.close()


def test_what_is_declared_counts_more_than_what_a_class_adds(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(ADDING.replace("MAX_BATCH", "0"))
    loaded = contract.load(tmp_path, trust=True, inputs=(spec_of("INPUT0", 2),))
    assert loaded.signature.inputs == (spec_of("INPUT0", 2), spec_of("INPUT1", 4))
    loaded.close()


X = {"name": "x", "data_type": "TYPE_FP32", "dims": [2]}


@pytest.mark.parametrize(
    ("config", "call", "words"),
    [
        ({}, lambda config: config.add_input({"name": "x"}), "without data_type"),
        ({}, lambda config: config.add_output({**X, "optional": True}), "unknown is optional"),
        ({"max_batch_size": 8}, lambda config: config.set_max_batch_size(4), "max_batch_size 8"),
        (
            {"input": [{**X, "dims": ["3"]}]},
            lambda config: config.add_input(X),
            r"the configuration has dims \[3\], auto_complete_config adds \[2\]",
        ),
    ],
)
def test_contradictions_are_refused(config: dict[str, Any], call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(triton_completion.CompletedConfig(config))


def test_the_configuration_that_was_given_stays_as_it_is() -> None:
    given: dict[str, Any] = {"input": [dict(X)], "max_batch_size": 2}
    completed = triton_completion.CompletedConfig(given)
    completed.add_input(X)
    completed.add_input({**X, "name": "other"})
    completed.set_max_batch_size(4)
    assert given == {"input": [X], "max_batch_size": 2}
    assert [tensor["name"] for tensor in completed.as_dict()["input"]] == ["x", "other"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("config.set_model_transaction_policy({'decoupled': True})", "decoupled models are not"),
        ("raise RuntimeError('no weights')", "no weights"),
    ],
)
def test_what_a_class_refuses_is_a_failed_load(tmp_path: Path, body: str, words: str) -> None:
    (tmp_path / "model.py").write_text(
        "import triton_python_backend_utils as pb_utils\n"
        "class TritonPythonModel:\n"
        "    @staticmethod\n"
        f"    def auto_complete_config(config):\n        {body}\n        return config\n"
        "    def execute(self, requests):\n        return []\n"
    )
    with pytest.raises(errors.LoadFailed, match=words):
        contract.load(tmp_path, trust=True)
