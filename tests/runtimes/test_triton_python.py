from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import python, triton_backend


def f32(values: Any) -> np.ndarray:
    return np.array(values, np.float32)


# After python_backend's example `add_sub`.
ADD_SUB = """
    import json
    import os
    from pathlib import Path
    import numpy as np
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def initialize(self, args):
            self.model_config = config = json.loads(args["model_config"])
            out = pb_utils.get_output_config_by_name(config, "OUTPUT0")
            self.dtype = pb_utils.triton_string_to_numpy(out["data_type"])
            path = os.path.join(args["model_repository"], args["model_version"], "bias.txt")
            self.bias = float(Path(path).read_text())
            assert out["dims"] == [2], out

        def execute(self, requests):
            import triton_python_backend_utils as again
            responses = []
            for request in requests:
                a = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
                b = pb_utils.get_input_tensor_by_name(request, "INPUT1")
                if (a < 0).any():
                    error = pb_utils.TritonError("no negative numbers")
                    responses.append(pb_utils.InferenceResponse(output_tensors=[], error=error))
                    continue
                b = b.as_numpy() if b is not None else np.zeros_like(a)
                out0 = again.Tensor("OUTPUT0", (a + b + self.bias).astype(self.dtype))
                out1 = pb_utils.Tensor("OUTPUT1", (a - b).astype(self.dtype))
                responses.append(pb_utils.InferenceResponse(output_tensors=[out0, out1]))
            return responses

        def finalize(self):
            Path(os.environ["FINALIZED"]).touch()
"""
CONFIG = {
    "backend": "python",
    "input": [
        {"name": "INPUT0", "data_type": "TYPE_FP32", "dims": ["2"]},
        {"name": "INPUT1", "data_type": "TYPE_FP32", "dims": ["2"], "optional": True},
    ],
    "output": [
        {"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": ["2"]},
        {"name": "OUTPUT1", "data_type": "TYPE_FP32", "dims": ["2"]},
    ],
}


def specs(kind: str, datatype: str = "FP32") -> tuple[model.TensorSpec, ...]:
    return tuple(
        model.TensorSpec(entry["name"], datatype, (2,))  # type: ignore[index]
        for entry in CONFIG[kind]
    )


def load(folder: Path, source: str = ADD_SUB, **fields: Any) -> model_runtime.LoadedModel:
    (folder / "model.py").write_text(textwrap.dedent(source))
    (folder / "bias.txt").write_text("100")
    spec = model.ModelSpec(
        model.ModelId("add", "3"),
        str(folder),
        **{
            "trust": True,
            "inputs": specs("input"),
            "outputs": specs("output"),
            "description": json.dumps({"config": CONFIG, "labels": {}}),
            **fields,
        },
    )
    return python.PythonRuntime().load(model_runtime.Artifact(folder, "d", 1), spec, "cpu")


def one_output(execute: str) -> str:
    """Return a model whose `execute` has this body."""
    return (
        "import triton_python_backend_utils as pb_utils\n"
        "class TritonPythonModel:\n"
        f"    def execute(self, requests):\n        {execute}\n"
    )


INPUTS = {"INPUT0": f32([5, 6]), "INPUT1": f32([1, 2])}


def test_a_class_of_triton_runs_from_initialize_to_finalize(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINALIZED", str(tmp_path / "finalized"))
    loaded = load(tmp_path)
    answer = loaded.predict(INPUTS, ())
    np.testing.assert_array_equal(answer["OUTPUT0"], f32([106, 108]), strict=True)
    np.testing.assert_array_equal(answer["OUTPUT1"], f32([4, 4]), strict=True)
    assert list(loaded.predict(INPUTS, ("OUTPUT1",))) == ["OUTPUT1"]
    assert loaded.signature.optional == {"INPUT1"}
    assert not loaded.signature.can_join
    alone = loaded.predict({"INPUT0": INPUTS["INPUT0"]}, ())
    np.testing.assert_array_equal(alone["OUTPUT0"], f32([105, 106]))
    with pytest.raises(errors.ModelRaised, match=r"^no negative numbers$"):
        loaded.predict({"INPUT0": -INPUTS["INPUT0"]}, ())
    assert triton_backend.NAME in sys.modules
    loaded.close()
    assert (tmp_path / "finalized").exists()
    assert triton_backend.NAME not in sys.modules


def test_it_is_code_that_must_be_trusted(tmp_path: Path) -> None:
    with pytest.raises(errors.LoadFailed, match="trust: true"):
        load(tmp_path, trust=False)
    assert triton_backend.NAME not in sys.modules


@pytest.mark.parametrize(
    ("source", "fields", "words"),
    [
        (ADD_SUB.replace("execute", "run"), {}, "has no execute"),
        (ADD_SUB.replace('"bias.txt"', '"missing"'), {}, "model.py.*FileNotFoundError"),
        ("import triton_python_backend_utils as u\nu.nothing", {}, "AttributeError"),
    ],
)
def test_a_class_that_can_not_be_loaded_leaves_nothing_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    fields: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.setenv("FINALIZED", str(tmp_path / "finalized"))
    with pytest.raises(errors.LoadFailed, match=words):
        load(tmp_path, source, **fields)
    assert triton_backend.NAME not in sys.modules


@pytest.mark.parametrize(
    ("execute", "words"),
    [
        ("return []", "one response for each request"),
        ("return None", "one response for each request"),
        ("return [None]", "None in place of a response"),
        ("return [pb_utils.InferenceResponse([])]", "did not return 'OUTPUT0'"),
        ("requests[0].get_response_sender()", "decoupled models are not served"),
        ("requests[0].exec()", "BLS"),
        ("raise ValueError('as it says')", "ValueError: as it says"),
    ],
)
def test_an_answer_that_is_none_reaches_the_caller_as_an_error(
    tmp_path: Path, execute: str, words: str
) -> None:
    loaded = load(tmp_path, one_output(execute))
    with pytest.raises(errors.ModelRaised, match=words):
        loaded.predict(INPUTS, ())
    loaded.close()


def test_execute_may_be_a_coroutine_function(tmp_path: Path) -> None:
    source = one_output(
        "return [pb_utils.InferenceResponse("
        "[pb_utils.Tensor(name, r.inputs()[0].as_numpy()) for name in r.requested_output_names()]"
        ") for r in requests]"
    ).replace("def execute", "async def execute")
    loaded = load(tmp_path, source)
    np.testing.assert_array_equal(loaded.predict(INPUTS, ())["OUTPUT1"], INPUTS["INPUT0"])
    loaded.close()


def test_objects_of_any_kind_are_texts(tmp_path: Path) -> None:
    # After qa/python_models/add_sub: numbers are cast to the dtype of TYPE_STRING, which is object.
    source = one_output(
        "a = requests[0].inputs()[0].as_numpy().astype(pb_utils.triton_string_to_numpy("
        "'TYPE_STRING')); "
        "return [pb_utils.InferenceResponse([pb_utils.Tensor('OUTPUT0', a)])]"
    )
    specs_ = {"inputs": specs("input", "INT32")[:1], "outputs": specs("output", "BYTES")}
    loaded = load(tmp_path, source, **specs_)
    for given in (np.array([7, -1], np.int32), np.zeros((0, 2), np.int32)):
        answer = loaded.predict({"INPUT0": given}, ("OUTPUT0",))["OUTPUT0"]
        assert answer.shape == given.shape
        assert answer.ravel().tolist() == [str(value).encode() for value in given.flat]
    loaded.close()


def test_texts_are_objects(tmp_path: Path) -> None:
    source = one_output(
        "a = requests[0].inputs()[0].as_numpy(); assert a.dtype == object; "
        "t = pb_utils.Tensor('OUTPUT0', a[::-1]); assert t.triton_dtype() == 'TYPE_STRING'; "
        "return [pb_utils.InferenceResponse([t])]"
    )
    text = {"inputs": specs("input", "BYTES")[:1], "outputs": specs("output", "BYTES")}
    loaded = load(tmp_path, source, **text)
    answer = loaded.predict({"INPUT0": np.array([b"a", b"\xff"], object)}, ("OUTPUT0",))
    assert answer["OUTPUT0"].tolist() == [b"\xff", b"a"]
    loaded.close()


SAYS = """
    import json
    import numpy as np
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        async def execute(self, requests):
            (request,) = requests
            if json.loads(request.parameters()).get("fail"):
                error = pb_utils.TritonError("not so", pb_utils.TritonError.INVALID_ARG)
                return [pb_utils.InferenceResponse(error=error)]
            said = [request.request_id(), request.parameters(), str(request.timeout())]
            said += request.requested_output_names()
            out = pb_utils.Tensor("OUTPUT0", np.array(said, object))
            return [pb_utils.InferenceResponse([out], parameters={"took": 3})]
"""


def test_a_request_s_id_parameters_and_outputs_are_seen(tmp_path: Path) -> None:
    loaded = load(tmp_path, SAYS, outputs=specs("output", "BYTES")[:1])
    details = model_runtime.RequestDetails(
        id="7", parameters={"a": 1.5, "timeout": 9, "triton_x": 1}, outputs=("OUTPUT0",)
    )
    answer = loaded.predict_request(INPUTS, ("OUTPUT0",), details)
    assert answer["OUTPUT0"].tolist() == [b"7", b'{"a": 1.5}', b"9", b"OUTPUT0"]
    assert isinstance(answer, model_runtime.AnswerTensors)
    assert answer.parameters == {"took": 3}
    bad = model_runtime.RequestDetails(parameters={"fail": True})
    with pytest.raises(errors.InvalidRequest, match=r"^not so$"):
        loaded.predict_request(INPUTS, (), bad)
    loaded.close()
