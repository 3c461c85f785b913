from __future__ import annotations

import importlib.util
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import mlserver_python
from tests.runtimes import mlserver_models

Details = model_runtime.RequestDetails


def texts(*items: bytes) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def loaded_from(folder: Path, name: str, source: str, **settings: Any) -> Any:
    mlserver_models.write(folder, name, source, **settings)
    return mlserver_models.load(folder, f"models.{name}")


def test_a_class_of_mlservers_runs_from_load_to_unload(tmp_path: Path) -> None:
    before = set(sys.modules)
    (tmp_path / "helper.py").write_text(mlserver_models.HELPER)
    (tmp_path / "weights.json").write_text('{"a": 3}')
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    parameters = {"uri": "./", "version": "v1", "extra": {"bias": 0.5}}
    loaded = loaded_from(
        tmp_path, "Linear", mlserver_models.LINEAR, inputs=inputs, parameters=parameters
    )
    assert loaded.signature.inputs == (model.TensorSpec("x", "FP32", (-1, 2)),)
    assert loaded.signature.is_open
    assert not loaded.signature.can_join
    x, z = np.array([[1, 2]], np.float32), np.array([4, np.nan])
    answer = loaded.predict_request({"x": x, "z": z}, (), Details(id="7"))
    np.testing.assert_array_equal(answer["x"], np.array([[3.5, 6.5]], np.float32), strict=True)
    np.testing.assert_array_equal(answer["z"], np.array([[12.5], [np.nan]]), strict=True)
    assert answer.output_parameters["x"] == {"content_type": "np"}
    loaded.close()
    left = {name for name in set(sys.modules) - before if name.startswith("meshserve_model_")}
    assert not left


def test_the_documented_text_of_another_shape_comes_back(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, "Hello", mlserver_models.HELLO)
    answer = loaded.predict_request({"n": texts(b'{"a": "\xc3\xa9"}')}, (), Details(is_json=True))
    (text,) = answer["echo"].tolist()
    assert json.loads(text) == {"hello": {"a": "é"}, "raw": '{"a": "é"}'}
    loaded.close()


def test_arguments_are_decoded_by_their_types(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, "Args", mlserver_models.ARGS)
    x = np.array([[1, 2], [3, 4]], np.float32)
    answer = loaded.predict({"x": x, "names": texts(b"a", b"b")}, ())
    assert answer["output-0"].tolist() == [[b"a=3"], [b"b=7"]]
    with pytest.raises(errors.InvalidRequest, match=r"Input 'z' was not found"):
        loaded.predict({"x": x, "names": texts(b"a", b"b"), "z": x}, ())
    loaded.close()
    frame = mlserver_models.load(tmp_path, "models.Frame")
    answer = frame.predict_request(
        {"a": np.array([1, 2]), "word": texts(b"x", b"yyy")}, (), Details(is_json=True)
    )
    assert answer["output-0"].tolist() == [[3], [7]]
    frame.close()


@pytest.mark.parametrize(
    ("array", "details", "data", "decoded"),
    [
        (np.array([[1, 2]]), Details(), [1, 2], None),
        (np.array([[1, 2]]), Details(nesting={"x": (1, 2)}, is_json=True), [[1, 2]], None),
        (np.array([5]), Details(nesting={"x": ()}, is_json=True), 5, None),
        (texts(b"a"), Details(is_json=True), ["a"], None),
        (texts(b"a"), Details(), ["b'a'"], None),
        (
            texts(b"YQ=="),
            Details(input_parameters={"x": {"content_type": "base64"}}),
            None,
            "[b'a']",
        ),
        (
            texts(b"2026-01-02"),
            Details(input_parameters={"x": {"content_type": "datetime"}}),
            None,
            "[datetime.datetime(2026, 1, 2, 0, 0)]",
        ),
        (texts(b"a"), Details(input_parameters={"x": {"content_type": "str"}}), None, "['a']"),
        (
            np.array([[1.5]], np.float16),
            Details(input_parameters={"x": {"content_type": "np"}}),
            [1.5],
            "array([[1.5]], dtype=float16)",
        ),
        (
            texts(b"a", b"bc"),
            Details(input_parameters={"x": {"content_type": "np"}}, is_json=True),
            None,
            "array(['a', 'bc'], dtype='<U2')",
        ),
    ],
)
def test_data_are_seen_as_they_came(
    tmp_path: Path, array: np.ndarray, details: Details, data: Any, decoded: str | None
) -> None:
    loaded = loaded_from(tmp_path, "Sees", mlserver_models.SEES)
    answer = loaded.predict_request({"x": array}, (), details)
    seen = json.loads(answer["seen"].item())
    assert seen["shape"] == list(array.shape)
    if data is not None:
        assert seen["data"] == data
    if decoded is not None:
        assert seen["decoded"] == decoded
    loaded.close()


def test_ids_parameters_headers_and_outputs_are_seen(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, "Sees", mlserver_models.SEES)
    details = Details(
        id="7", parameters={"scale": 2}, headers={"x-tenant": "acme"}, outputs=("seen",)
    )
    answer = loaded.predict_request({"x": np.array([1])}, ("seen",), details)
    seen = json.loads(answer["seen"].item())
    assert (seen["id"], seen["extra"], seen["tenant"]) == ("7", 2, "acme")
    assert seen["outputs"] == ["seen"]
    assert answer.parameters == {"took": 3}
    assert answer.output_parameters == {"seen": {"content_type": "str"}}
    with pytest.raises(errors.InvalidRequest, match="content_type Input should be a valid string"):
        loaded.predict_request({"x": np.array([1])}, (), Details(parameters={"content_type": 5}))
    loaded.close()


RAISES = """
    from mlserver import MLModel
    from mlserver.errors import InferenceError, MLServerError
    from mlserver.types import InferenceResponse, ResponseOutput

    class Raises(MLModel):
        async def predict(self, payload):
            kind = payload.parameters.kind
            if kind == "caller":
                raise InferenceError("not so")
            if kind == "own":
                raise MLServerError("broken", 500)
            if kind == "exit":
                raise SystemExit(3)
            if kind == "twice":
                output = ResponseOutput(name="y", shape=[1], datatype="FP32", data=[1])
                return InferenceResponse(model_name="m", outputs=[output, output])
            return {"none": "of", "these": kind}[kind]
"""


@pytest.mark.parametrize(
    ("kind", "failure", "words"),
    [
        ("caller", errors.InvalidRequest, "^not so$"),
        ("own", errors.ModelRaised, r"^models\.py:12: MLServerError: broken"),
        ("exit", errors.ModelRaised, "SystemExit: 3"),
        ("bug", errors.ModelRaised, r"^models\.py:18: KeyError: 'bug'"),
        ("twice", errors.ModelRaised, "two outputs of an answer have the same name"),
        ("none", errors.ModelRaised, "did not return an InferenceResponse"),
    ],
)
def test_errors_reach_the_caller_in_the_class_s_words(
    tmp_path: Path, kind: str, failure: type[Exception], words: str
) -> None:
    loaded = loaded_from(tmp_path, "Raises", RAISES)
    with pytest.raises(failure, match=words):
        loaded.predict_request({"x": np.array([1])}, (), Details(parameters={"kind": kind}))
    loaded.close()


MEETS = """
    import asyncio
    from mlserver import MLModel, types

    class Meets(MLModel):
        async def load(self):
            self.meeting = asyncio.Barrier(2)
            self.lock = asyncio.Lock()
            self.loop = asyncio.get_running_loop()

        async def predict(self, payload):
            assert asyncio.get_running_loop() is self.loop
            async with self.lock:
                pass
            await self.meeting.wait()
            return types.InferenceResponse(
                model_name=self.name,
                outputs=[types.ResponseOutput(
                    name="y", shape=[1], datatype="INT64", data=payload.inputs[0].data
                )],
            )
"""


def test_requests_interleave_on_the_model_s_own_loop(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, "Meets", MEETS)
    assert loaded.capabilities.is_reentrant
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda n: loaded.predict({"x": np.array([n])}, ()), (1, 2)))
    assert [answer["y"].tolist() for answer in answers] == [[1], [2]]
    loaded.close()


OWN_CODEC = """
    from mlserver import MLModel, types
    from mlserver.codecs import InputCodec, register_input_codec, StringCodec

    @register_input_codec
    class Mine(InputCodec):
        ContentType = "mine"

        @classmethod
        def decode_input(cls, request_input):
            return "NUMBER"

    class Uses(MLModel):
        async def predict(self, payload):
            text = self.decode(payload.inputs[0])
            return types.InferenceResponse(
                model_name=self.name, outputs=[StringCodec.encode_output("y", [text])]
            )
"""


@pytest.mark.skipif(
    importlib.util.find_spec("mlserver") is not None,
    reason="all models of a process share the codecs of MLServer itself",
)
def test_a_codec_of_the_model_s_own_is_found_for_it_alone(tmp_path: Path) -> None:
    answers = []
    models = []
    for number in ("one", "two"):
        folder = tmp_path / number
        folder.mkdir()
        models.append(loaded_from(folder, "Uses", OWN_CODEC.replace("NUMBER", number)))
    details = Details(input_parameters={"x": {"content_type": "mine"}})
    for loaded in models:
        answer = loaded.predict_request({"x": np.array([1])}, (), details)
        answers.append(answer["y"].item())
        loaded.close()
    assert answers == [b"one", b"two"]


OWN_TYPE = """
    from mlserver import MLModel, types
    from mlserver.codecs import InputCodec, register_input_codec, decode_args

    class Celsius(float):
        pass

    @register_input_codec
    class CelsiusCodec(InputCodec):
        TypeHint = Celsius

        @classmethod
        def can_encode(cls, payload):
            return isinstance(payload, Celsius)

        @classmethod
        def decode_input(cls, request_input):
            return Celsius(request_input.data[0])

        @classmethod
        def encode_output(cls, name, payload):
            return types.ResponseOutput(name=name, shape=[1], datatype="FP64", data=[payload])

    class Warms(MLModel):
        @decode_args
        async def predict(self, degrees: Celsius) -> Celsius:
            return Celsius(degrees + 1)
"""


def test_arguments_are_decoded_by_the_model_s_own_codec(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, "Warms", OWN_TYPE)
    answer = loaded.predict({"degrees": np.array([20.5])}, ())
    assert {name: array.tolist() for name, array in answer.items()} == {"output-0": [21.5]}
    loaded.close()


SETS = """
    from mlserver import MLModel
    from mlserver.types import MetadataTensor

    class Sets(MLModel):
        async def load(self):
            self.inputs = [MetadataTensor(name="n", datatype="FP32", shape=[])]
            return READY

        async def predict(self, payload):
            pass
"""


def test_load_may_tell_of_tensors_and_must_not_say_no(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, "Sets", SETS.replace("READY", "True"))
    assert loaded.signature.inputs == (model.TensorSpec("n", "FP32", ()),)
    loaded.close()
    with pytest.raises(errors.LoadFailed, match="load returned False"):
        loaded_from(tmp_path, "Sets", SETS.replace("READY", "False"))
    with pytest.raises(errors.LoadFailed, match=r"^models\.py:8: NameError"):
        loaded_from(tmp_path, "Sets", SETS)


def test_what_is_wrong_with_a_class_is_told(tmp_path: Path) -> None:
    mlserver_models.write(tmp_path, "Sets", SETS)
    before = set(sys.modules)
    with pytest.raises(errors.LoadFailed, match="trust: true"):
        mlserver_models.load(tmp_path, "models.Sets", trust=False)
    with pytest.raises(errors.LoadFailed, match=r"models\.py has no class 'Set'"):
        mlserver_models.load(tmp_path, "models.Set")
    with pytest.raises(errors.LoadFailed, match=r"'modls' .* neither .*modls\.py"):
        mlserver_models.load(tmp_path, "modls.Sets")
    (tmp_path / "model-settings.json").write_text('{"inputs": 3, "implementation": "models.Sets"}')
    with pytest.raises(errors.LoadFailed, match=r"model-settings\.json"):
        mlserver_models.load(tmp_path, "models.Sets")
    left = {name for name in set(sys.modules) - before if name.startswith("meshserve_model_")}
    assert not left


def test_a_class_in_a_package_takes_its_options_from_the_mesh(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "other.py").write_text("FACTOR = 5\n")
    source = """
from mlserver import MLModel
from mlserver.codecs import NumpyRequestCodec
from .other import FACTOR
from pkg import other

class Scale(MLModel):
    async def predict(self, payload):
        array = self.decode_request(payload, default_codec=NumpyRequestCodec)
        extra = self.settings.parameters.extra
        assert other.FACTOR == FACTOR
        return NumpyRequestCodec.encode_response(
            self.name, array * FACTOR + extra["plus"], self.version
        )
"""
    (tmp_path / "pkg" / "runtime.py").write_text(source)
    loaded = mlserver_models.load(tmp_path, "pkg.runtime.Scale", options={"plus": 1})
    answer = loaded.predict({"x": np.array([[1.0, 2.0]])}, ())
    assert answer["output-1"].tolist() == [[6, 11]]
    loaded.close()


class Output:
    """An output as MLServer's type has it."""

    def __init__(self, data: Any, datatype: str, shape: list[int]) -> None:
        self.name, self.data, self.datatype, self.shape = "y", data, datatype, shape


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "expected"),
    [
        ([1, 2], "FP32", [2], np.array([1, 2], np.float32)),
        ([[1], [2]], "INT64", [2, 1], np.array([[1], [2]])),
        ([1, None], "FP64", [2], np.array([1, np.nan])),
        ([1.0, 2.0], "INT32", [1], np.array([1, 2], np.int32)),
        (np.array([[True]]), "BOOL", [1, 1], np.array([[True]])),
        ([2**64 - 1], "UINT64", [1], np.array([2**64 - 1], np.uint64)),
        (3, "INT8", [1], np.array([3], np.int8)),
        ([], "FP32", [0, 2], np.zeros((0, 2), np.float32)),
        ([1e6], "FP16", [1], np.array([np.inf], np.float16)),
    ],
)
def test_an_output_has_its_own_values_and_datatype(
    data: Any, datatype: str, shape: list[int], expected: np.ndarray
) -> None:
    array = mlserver_python.to_array(Output(data, datatype, shape))
    np.testing.assert_array_equal(array, expected, strict=True)


@pytest.mark.parametrize(
    ("data", "datatype"),
    [([1.5], "INT32"), ([300], "INT8"), ([-1], "UINT8"), (["a"], "FP32"), ([None], "BYTES")],
)
def test_values_that_a_datatype_can_t_hold_are_no_answer(data: Any, datatype: str) -> None:
    with pytest.raises(errors.ModelRaised, match=f"declared {datatype}"):
        mlserver_python.to_array(Output(data, datatype, [1]))
