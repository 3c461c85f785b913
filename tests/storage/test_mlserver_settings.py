from __future__ import annotations

import json

import pytest

from meshserve.core.values import model
from meshserve.storage import mlserver_settings, model_metadata

SETTINGS = {
    "name": "iris",
    "implementation": "mlserver_sklearn.SKLearnModel",
    "parameters": {"uri": "./iris.joblib", "version": "v0.1.0", "extra": {"a": 1}},
    "inputs": [
        {"name": "x", "datatype": "FP64", "shape": [-1, 4], "parameters": {"content_type": "np"}}
    ],
    "outputs": [{"name": "predict", "datatype": "INT64", "shape": [-1]}],
    "max_batch_size": 32,
    "max_batch_time": 0.1,
}


def test_whole_settings() -> None:
    assert mlserver_settings.read(json.dumps(SETTINGS)) == model_metadata.ModelDeclaration(
        name="iris",
        version="v0.1.0",
        uri="./iris.joblib",
        runtime="sklearn",
        inputs=(model.TensorSpec("x", "FP64", (-1, 4)),),
        outputs=(model.TensorSpec("predict", "INT64", (-1,)),),
        max_batch_size=32,
    )


def test_all_settings_are_optional() -> None:
    assert (
        mlserver_settings.read("{}")
        == mlserver_settings.read('{"parameters": null, "max_batch_size": 0}')
        == model_metadata.ModelDeclaration()
    )


def test_an_unknown_implementation_is_kept() -> None:
    third_party = {"implementation": "mine", "parameters": {"uri": "./files"}}
    read = mlserver_settings.read(json.dumps(third_party))
    assert (read.runtime, read.uri) == ("mine", "./files")


def test_a_class_of_the_user_s_own_gets_the_whole_folder() -> None:
    settings = {"implementation": "models.Mine", "parameters": {"uri": "s3://bucket/weights"}}
    read = mlserver_settings.read(json.dumps(settings))
    assert (read.runtime, read.uri) == ("models.Mine", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"name": 1}',
        '{"parameters": [1]}',
        '{"inputs": [1]}',
        '{"inputs": [{"name": "x"}]}',
        b"\xff",
    ],
)
def test_wrong_settings_say_why(text: str) -> None:
    with pytest.raises(
        ValueError
    ) as raised:  # in the words of whoever found it: json, the codec or we
        mlserver_settings.read(text)
    assert str(raised.value)
