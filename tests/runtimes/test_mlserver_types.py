from __future__ import annotations

import json
from pathlib import Path

import pydantic
import pytest

from meshserve.runtimes import mlserver_types

TENSOR = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1, 2]]}


def test_a_request_is_read_from_a_document_and_written_as_one() -> None:
    document = {
        "inputs": [{**TENSOR, "parameters": {"content_type": "np", "own": 3}}],
        "parameters": {"headers": {"a": "b"}},
    }
    request = mlserver_types.PayloadRequest.model_validate(document)
    (tensor,) = request.inputs
    assert (str(tensor.datatype), tensor.data.root, [*tensor.data]) == ("FP32", [[1, 2]], [[1, 2]])
    assert (len(tensor.data), tensor.data[0]) == (1, [1, 2])
    assert tensor.parameters is not None
    assert tensor.parameters.model_dump()["own"] == 3
    assert request.model_dump() == document
    hidden = {"parameters": {"headers"}, "inputs": {"__all__": {"parameters": {"own"}}}}
    shown = json.loads(request.model_dump_json(exclude=hidden))
    assert shown["parameters"] == {}
    assert shown["inputs"][0]["parameters"] == {"content_type": "np"}


@pytest.mark.parametrize("change", [{"datatype": "FLOAT"}, {"shape": "x"}, {"name": None}])
def test_a_wrong_tensor_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        mlserver_types.ResponseOutput.model_validate({**TENSOR, **change})


def test_settings_are_read_from_their_file(tmp_path: Path) -> None:
    file = tmp_path / "model-settings.json"
    parameters = {"uri": "./w", "version": "v2", "extra": {"a": 1}, "own": 5}
    file.write_text(json.dumps({"name": "m", "parameters": parameters, "unknown": 1}))
    settings = mlserver_types.ModelSettings.parse_file(file)
    assert (settings.name, settings.version, settings._source) == ("m", "v2", str(file))
    assert settings.parameters is not None
    assert settings.parameters.extra == {"a": 1}
    assert settings.parameters.model_dump()["own"] == 5
    assert mlserver_types.ModelSettings().version is None


def test_errors_have_a_status() -> None:
    assert mlserver_types.MLServerError("a").status_code == 400
    assert mlserver_types.InvalidModelURI("m", "u").status_code == 422
    assert str(mlserver_types.InvalidModelURI("m", "u")) == "Invalid URI specified for model m (u)"
    assert mlserver_types.InferenceError("no").status_code == 400
    assert "m" in str(mlserver_types.ModelParametersMissing("m"))
