from __future__ import annotations

from meshserve.core.values import model
from meshserve.protocol import model_description, tensors, tf_serving
from tests.protocol import drawn


def test_every_datatype_has_its_name() -> None:
    assert set(tf_serving.DTYPES) == set(tensors.DTYPES)


def test_a_signature_is_a_saved_models() -> None:
    served = model_description.ServedModel(
        model.ModelId("m", "3"), ("2", "3"), drawn.SIGNATURE, "onnx"
    )
    document = tf_serving.metadata_json(served)
    assert document["model_spec"]["version"] == "3"
    signature = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert list(signature["inputs"]) == ["x", "name"]
    assert signature["outputs"]["label"]["dtype"] == "DT_STRING"
    assert signature["outputs"]["label"]["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]


def test_a_status_has_kserves_and_tensorflow_servings_fields() -> None:
    status = tf_serving.status_json("m", {"1": True, "2": False}, is_ready=False)
    assert (status["name"], status["ready"]) == ("m", False)
    assert [entry["state"] for entry in status["model_version_status"]] == ["AVAILABLE", "END"]
