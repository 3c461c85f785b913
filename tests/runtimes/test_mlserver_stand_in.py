from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshserve.runtimes import mlserver_codecs, mlserver_stand_in, mlserver_types

MADE = mlserver_stand_in.modules()

IMPORTED = [
    ("", "MLModel ModelSettings register log __version__ types codecs"),
    ("types", "InferenceRequest InferenceResponse RequestInput RequestOutput ResponseOutput"),
    ("types", "Parameters MetadataTensor Datatype TensorData MetadataModelResponse"),
    ("codecs", "NumpyCodec NumpyRequestCodec StringCodec StringRequestCodec PandasCodec"),
    ("codecs", "Base64Codec DatetimeCodec InputCodec RequestCodec decode_args CodecError"),
    ("codecs", "register_input_codec register_request_codec DecodedParameterName has_decoded"),
    ("codecs.utils", "InputOrOutput get_decoded get_decoded_or_raw SingleInputRequestCodec"),
    ("codecs.string", "StringCodec encode_str decode_str"),
    ("codecs.decorator", "decode_args"),
    ("utils", "get_model_uri"),
    ("errors", "MLServerError InferenceError InvalidModelURI ModelParametersMissing"),
    ("settings", "ModelSettings ModelParameters"),
    ("logging", "logger"),
    ("model", "MLModel"),
    ("handlers", "custom_handler"),
]


@pytest.mark.parametrize(("module", "names"), IMPORTED)
def test_models_find_what_they_import(module: str, names: str) -> None:
    shown = MADE[f"mlserver.{module}".rstrip(".")]
    assert not [name for name in names.split() if not hasattr(shown, name)]


def settings(folder: Path | None = None, **parameters: Any) -> mlserver_types.ModelSettings:
    written = mlserver_types.ModelSettings.model_validate({"name": "m", "parameters": parameters})
    written._source = None if folder is None else str(folder / "model-settings.json")
    return written


async def test_a_model_s_uri_is_relative_to_its_settings(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "b.bin").touch()
    get = mlserver_stand_in.get_model_uri
    assert await get(settings(tmp_path, uri="./w")) == str(tmp_path / "w")
    assert await get(settings(tmp_path, uri="w"), ["a.bin", "b.bin"]) == str(tmp_path / "w/b.bin")
    assert await get(settings(tmp_path, uri="s3://b/w")) == "s3://b/w"
    assert await get(settings(uri=str(tmp_path / "w"))) == str(tmp_path / "w")
    for wrong in (
        settings(tmp_path, uri="./x"),
        settings(tmp_path),
        mlserver_types.ModelSettings(),
    ):
        with pytest.raises(mlserver_types.InvalidModelURI):
            await get(wrong)


class Echo(mlserver_stand_in.MLModel):
    """A model that only has what its base gives."""


async def test_the_base_class_loads_and_refuses_to_predict() -> None:
    echo = Echo(settings(version="v1"))
    assert (echo.name, echo.version, echo.ready) == ("m", "v1", False)
    assert await echo.load()
    assert await echo.unload()
    assert (await echo.metadata()).name == "m"
    with pytest.raises(NotImplementedError):
        await echo.predict(None)


def test_values_are_decoded_and_encoded_as_the_model_declares() -> None:
    echo = Echo(settings())
    said = {"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"content_type": "np"}}
    echo.inputs = [mlserver_types.MetadataTensor.model_validate(said)]
    sent = mlserver_types.RequestInput.model_validate(
        {"name": "x", "datatype": "FP32", "shape": [1], "data": [3]}
    )
    assert isinstance(echo.decode(sent), np.ndarray)
    other = mlserver_types.RequestInput.model_validate(
        {"name": "z", "datatype": "BYTES", "shape": [1], "data": ["a"]}
    )
    assert echo.decode(other) is other.data
    assert echo.decode(other, mlserver_codecs.StringCodec) == ["a"]
    wanted = mlserver_types.RequestOutput(name="y")
    assert echo.encode(["a"], wanted).data.root == [b"a"]
    assert echo.encode_response(np.array([1])).outputs[0].datatype == "INT64"
    with pytest.raises(mlserver_codecs.CodecNotFound):
        echo.encode(3, wanted)
    with pytest.raises(mlserver_codecs.CodecNotFound):
        echo.encode_response(3)


def test_metrics_and_paths_of_a_model_s_own_do_nothing(caplog: pytest.LogCaptureFixture) -> None:
    mlserver_stand_in.register("a", "b").labels(x=1).observe(3)
    mlserver_stand_in.log(a=1)
    assert mlserver_stand_in.custom_handler("/x")(len) is len
    assert "POST /x" in caplog.text
