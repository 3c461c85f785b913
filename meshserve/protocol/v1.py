"""V1 REST (`:predict`, TensorFlow Serving's API): rows or columns in, the same out.

Its tensors have no datatypes: the model's signature gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import inference, json_tensors


def decode_predict(body: bytes, signature: model.Signature) -> tuple[inference.InferCall, bool]:
    """Return the call in a body, and whether it came by rows.

    `instances` are rows, `inputs` are columns. Raises InvalidRequest.
    """
    document = json_tensors.parse_object(body)
    instances, columns = document.get("instances"), document.get("inputs")
    if (instances is None) == (columns is None):
        raise errors.InvalidRequest(
            'the body must have either "instances", a list of rows, or "inputs", columns by name'
        )
    if instances is None:
        values = columns if isinstance(columns, dict) else {_only(signature).name: columns}
    elif isinstance(instances, list):
        values = _columns(instances, signature)
    else:
        raise errors.InvalidRequest('"instances" must be a list, one entry for each row')
    datatypes = {spec.name: spec.datatype for spec in signature.inputs}
    inputs = {name: _tensor(name, value, datatypes) for name, value in values.items()}
    return inference.InferCall("", inputs=inputs), instances is not None


def _tensor(name: str, value: Any, datatypes: Mapping[str, str]) -> inference.WireTensor:
    datatype = datatypes.get(name)
    if datatype is None:
        raise errors.InvalidRequest(
            f"the model has no input {name!r}; it has: {', '.join(datatypes)}"
        )
    return inference.WireTensor(datatype, json_tensors.to_array(value, datatype, name))


def _columns(instances: Sequence[Any], signature: model.Signature) -> dict[str, list[Any]]:
    # `{"b64": "…"}` is a value of BYTES, not a row of named inputs.
    if not instances or not all(
        isinstance(row, dict) and json_tensors.BASE64_KEY not in row for row in instances
    ):
        return {_only(signature).name: list(instances)}
    names = [spec.name for spec in signature.inputs]
    for number, row in enumerate(instances):
        if set(row) != set(names):
            raise errors.InvalidRequest(
                f"instance {number} has the inputs {sorted(row)}, the model takes {names}"
            )
    return {name: [row[name] for row in instances] for name in names}


def _only(signature: model.Signature) -> model.TensorSpec:
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise errors.InvalidRequest(f"the model has several inputs: give each by name ({names})")
    return signature.inputs[0]


def encode_predict(reply: inference.InferReply, *, by_rows: bool) -> bytes:
    """Return the answer's JSON: `predictions` if rows came, `outputs` by name if columns came.

    Predictions are by row if all outputs have the same number of rows, else by name. Raises
    ModelRaised for outputs whose datatypes are not the signature's.
    """
    outputs = inference.checked_outputs(reply)
    columns = {
        spec.name: json_tensors.nested_values(array, spec.datatype) for spec, array in outputs
    }
    sizes = {array.shape[:1] for _, array in outputs}
    # TensorFlow Serving leaves the name of a single output out.
    if len(columns) == 1:
        (values,) = columns.values()
    elif by_rows and len(sizes) == 1 and sizes != {()}:
        rows = zip(*columns.values(), strict=True)
        values = [dict(zip(columns, row, strict=True)) for row in rows]
    else:
        values = columns
    return json_tensors.dump({"predictions" if by_rows else "outputs": values})
