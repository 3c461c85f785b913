"""TensorFlow Serving: the requests of its REST documentation, for models in its layout."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from compat import cases, mesh, world

PEER = "TensorFlow Serving"
DOCUMENT = "docs: api_rest.md"
MODEL = "/v1/models/half_plus_two"
NEWEST = max(mesh.TF_OFFSETS)


def _half(values: list[float], version: int = NEWEST) -> list[float]:
    return [value / 2 + mesh.TF_OFFSETS[version] for value in values]


@cases.case(PEER, "predict", DOCUMENT + ", row format")
def rows(asked: world.World) -> None:
    """The first example of all: half plus two."""
    answer = asked.post(f"{MODEL}:predict", {"instances": [1.0, 2.0, 5.0]})
    assert answer == {"predictions": _half([1, 2, 5])}


@cases.case(PEER, "predict", DOCUMENT + ", column format")
def columns(asked: world.World) -> None:
    """A single input's columns need no name, and a single output has none."""
    for inputs in ([1.0, 2.0], {"x": [1.0, 2.0]}):
        assert asked.post(f"{MODEL}:predict", {"inputs": inputs}) == {"outputs": _half([1, 2])}


@cases.case(PEER, "predict", DOCUMENT + ", named rows")
def named_rows(asked: world.World) -> None:
    """Rows of several named inputs give rows of several named outputs."""
    row = {"INPUT0": list(range(16)), "INPUT1": [1] * 16}
    answer = asked.post("/v1/models/simple:predict", {"instances": [row, row]})
    right = {"OUTPUT0": list(range(1, 17)), "OUTPUT1": list(range(-1, 15))}
    assert answer == {"predictions": [right, right]}


@cases.case(PEER, "predict", DOCUMENT + ", several named inputs in columns")
def named_columns(asked: world.World) -> None:
    """Columns of several inputs give columns of several outputs."""
    inputs = {"INPUT0": [list(range(16))], "INPUT1": [[1] * 16]}
    answer = asked.post("/v1/models/simple:predict", {"inputs": inputs})
    assert answer["outputs"]["OUTPUT0"] == [list(range(1, 17))]


@cases.case(PEER, "predict", DOCUMENT + ", signature_name")
def the_default_signature(asked: world.World) -> None:
    """The default signature may be named."""
    body = {"signature_name": "serving_default", "instances": [1.0]}
    assert asked.post(f"{MODEL}:predict", body) == {"predictions": _half([1])}


@cases.case(PEER, "predict", DOCUMENT + ", versions")
def versions(asked: world.World) -> None:
    """The newest version answers, or the one in the path."""
    for version in mesh.TF_OFFSETS:
        answer = asked.post(f"{MODEL}/versions/{version}:predict", {"instances": [3.0]})
        assert answer == {"predictions": _half([3], version)}
    assert asked.rest.post(f"{MODEL}/versions/9:predict", json={"instances": [3.0]}).is_error


@cases.case(PEER, "predict", DOCUMENT + ", a slash at the end")
def slashes(asked: world.World) -> None:
    """A slash at the end changes nothing."""
    answer = asked.post(f"{MODEL}:predict/", {"instances": [1.0]})
    assert answer == {"predictions": _half([1])}


@cases.case(PEER, "predict", DOCUMENT + ", encoding binary values")
def binary_values(asked: world.World) -> None:
    """Bytes are {"b64": …}, alone and in rows."""
    value = {"b64": base64.b64encode(b"\xff\x00").decode()}
    answer = asked.post("/v1/models/simple_identity:predict", {"instances": [[value, value]]})
    assert answer == {"predictions": [[value, value]]}


@cases.case(PEER, "predict", DOCUMENT + ", JSON conformance: NaN and infinities")
def special_numbers(asked: world.World) -> None:
    """The words NaN, Infinity and -Infinity are numbers, both ways."""
    body = b'{"instances": [NaN, Infinity, -Infinity, 1.0]}'
    answer = asked.rest.post(f"{MODEL}:predict", content=body)
    assert answer.status_code == 200, answer.text
    given = np.array(answer.json()["predictions"])
    np.testing.assert_array_equal(given, _half([np.nan, np.inf, -np.inf, 1]))


@cases.case(PEER, "status", DOCUMENT + ", model status API")
def status(asked: world.World) -> None:
    """The status of all versions, and of one."""
    entries = asked.get(MODEL)["model_version_status"]
    assert {entry["version"] for entry in entries} == {str(v) for v in mesh.TF_OFFSETS}
    assert {entry["state"] for entry in entries} == {"AVAILABLE"}
    (entry,) = asked.get(f"{MODEL}/versions/1")["model_version_status"]
    assert entry["status"] == {"error_code": "OK", "error_message": ""}


@cases.case(PEER, "metadata", DOCUMENT + ", model metadata API")
def metadata(asked: world.World) -> None:
    """The signature in the form of a SavedModel's."""
    answer = asked.get(f"{MODEL}/metadata")
    assert answer["model_spec"]["name"] == "half_plus_two"
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    (given,) = signatures["serving_default"]["inputs"].values()
    assert given["dtype"] == "DT_FLOAT"
    assert [size["size"] for size in given["tensor_shape"]["dim"]] == ["-1"]


@cases.swept(PEER, "errors", DOCUMENT, ("instances", "inputs"))
def bad_bodies(asked: world.World, key: str) -> None:
    """What can't be a request is refused with {"error": …}."""
    bodies: list[Any] = [{}, {key: None}, {key: {"z": [1]}}, {key: [[1], [1, 2]]}, {key: ["a"]}]
    for body in bodies:
        answer = asked.rest.post(f"{MODEL}:predict", json=body)
        assert answer.status_code == 400, f"{body}: {answer.status_code} {answer.text}"
        assert answer.json()["error"]


@cases.refusal(PEER, "classify and regress", DOCUMENT + ", classify and regress API")
def examples_of_tensorflow(asked: world.World) -> str:
    """Examples of TensorFlow's are not taken."""
    for verb in ("classify", "regress"):
        answer = asked.rest.post(f"{MODEL}:{verb}", json={"examples": [{"x": 1.0}]})
        assert answer.status_code == 501, answer.text
    return str(answer.json()["error"])
