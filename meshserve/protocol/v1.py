"""V1 REST (`:predict`, TensorFlow Serving's API): rows or columns in, the same out.

Its tensors have no datatypes: the model's signature gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import (
    inference,
    json_tensors,
    request_parts,
    tensors,
    v1_open,
    v1_tables,
)


@dataclass(frozen=True, slots=True)
class PredictCall:
    """A call, and the form of its answer.

    `is_by_rows`: rows came, so predictions go back. `rows` is their number.
    """

    call: inference.InferCall
    is_by_rows: bool
    rows: int = 0


def decode_predict(body: bytes, signature: model.Signature) -> PredictCall:
    """Return the call in a body, without its model, which the URL names. Raises InvalidRequest.

    `instances` are rows, `inputs` are columns. `outputs`, an extension, names the outputs to
    return. Without it a tabular model gives its main answer, as KServe does: a classifier's labels.
    """
    document = json_tensors.parse_object(body)
    instances, columns = document.get("instances"), document.get("inputs")
    if (instances is None) == (columns is None):
        raise errors.InvalidRequest(
            'the body must have either "instances", a list of rows, or "inputs", columns by name'
        )
    if instances is not None and not isinstance(instances, list):
        raise errors.InvalidRequest('"instances" must be a list, one entry for each row')
    if instances is None and signature.table is not None and _are_frames(columns):
        # KServe's LightGBM server takes a list of frames under this name too.
        instances, columns = columns, None
    if len(body) >= request_parts.BIG_BYTES_MIN:
        request_parts.check_v1(instances, columns)
    inputs = _inputs(instances, columns, signature)
    outputs = _requested(document)
    if signature.table is not None and not outputs:
        main = signature.outputs[: signature.table.main_outputs]
        outputs = tuple(spec.name for spec in main)
    rows = next((len(tensor.array) for tensor in inputs.values() if tensor.array.ndim), 0)
    call = inference.InferCall("", inputs=inputs, outputs=outputs)
    return PredictCall(call, instances is not None, rows)


def _inputs(
    instances: list[Any] | None, columns: Any, signature: model.Signature
) -> dict[str, tensors.WireTensor]:
    """Return the inputs in rows, or in columns where `instances` is None."""
    table = signature.table
    if table is not None and instances is not None:
        return v1_tables.from_rows(instances, signature, table)
    if table is not None:
        return v1_tables.from_columns(columns, signature, table)
    if signature.has_open_inputs:
        if instances is not None:
            return v1_open.from_rows(instances, signature)
        return v1_open.from_columns(columns, signature)
    if instances is not None:
        values: dict[str, Any] = _columns(instances, signature)
    else:
        values = columns if isinstance(columns, dict) else {_only(signature).name: columns}
    datatypes = {spec.name: spec.datatype for spec in signature.inputs}
    return {name: _tensor(name, value, datatypes) for name, value in values.items()}


def _requested(document: Mapping[str, Any]) -> tuple[str, ...]:
    names = document.get("outputs") or ()
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise errors.InvalidRequest('"outputs" must be a list of the names of outputs')
    return tuple(names)


def _are_frames(columns: object) -> bool:
    return (
        isinstance(columns, list)
        and bool(columns)
        and all(isinstance(row, dict) for row in columns)
    )


def _tensor(name: str, value: Any, datatypes: Mapping[str, str]) -> tensors.WireTensor:
    datatype = datatypes.get(name)
    if datatype is None:
        raise errors.InvalidRequest(
            f"the model has no input {name!r}; it has: {', '.join(datatypes)}"
        )
    return tensors.WireTensor(datatype, json_tensors.to_array(value, datatype, name))


def _columns(instances: Sequence[Any], signature: model.Signature) -> dict[str, list[Any]]:
    # `{"b64": "…"}` is a value of BYTES, not a row of named inputs.
    if not instances or not all(
        isinstance(row, dict) and json_tensors.BASE64_KEY not in row for row in instances
    ):
        return {_only(signature).name: list(instances)}
    names = [spec.name for spec in signature.inputs]
    given = set(instances[0])
    for number, row in enumerate(instances):
        missing = set(names) - set(row)
        # All rows must have the same optional inputs: a tensor has no gaps.
        if set(row) != given or not given <= set(names) or missing - signature.optional:
            optional = sorted(signature.optional)
            note = f"; all rows may leave out {optional}" if optional else ""
            raise errors.InvalidRequest(
                f"instance {number} has the inputs {sorted(row)}, the model takes {names}{note}"
            )
    return {name: [row[name] for row in instances] for name in names if name in given}


def _only(signature: model.Signature) -> model.TensorSpec:
    if signature.is_open and not signature.inputs:
        raise errors.InvalidRequest(
            "the model does not declare its inputs, whose datatypes V1 does not say: "
            "ask by V2, /v2/models/NAME/infer"
        )
    needed = [spec for spec in signature.inputs if spec.name not in signature.optional]
    only = needed if len(needed) == 1 else signature.inputs
    if len(only) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise errors.InvalidRequest(f"the model has several inputs: give each by name ({names})")
    return only[0]


def encode_predict(reply: inference.InferReply, predicted: PredictCall) -> bytes:
    """Return the answer's JSON: `predictions` if rows came, `outputs` by name if columns came.

    Predictions are by row if the model has a batch dimension, in which each output has a row for
    each that came; else by name, because sizes that coincide say nothing. Raises ModelRaised for
    outputs whose datatypes are not the signature's.
    """
    outputs = inference.checked_outputs(reply)
    is_row_each = reply.signature.has_batch_dimension and all(
        array.shape[:1] == (predicted.rows,) for _, array in outputs
    )
    if len(outputs) > 1 and predicted.is_by_rows and is_row_each:
        values = _rows(outputs, predicted.rows)
    else:
        values = {
            spec.name: json_tensors.nested_values(array, spec.datatype) for spec, array in outputs
        }
        # TensorFlow Serving leaves the name of a single output out.
        if len(values) == 1:
            (values,) = values.values()
    return json_tensors.dump({"predictions" if predicted.is_by_rows else "outputs": values})


def _rows(outputs: Sequence[tuple[model.TensorSpec, np.ndarray]], rows: int) -> Any:
    """Return the rows of several outputs for `dump`, each with its values by name."""
    names = [spec.name for spec, _ in outputs]
    columns = [json_tensors.row_values(array, spec.datatype) for spec, array in outputs]
    row_size = sum(array.size for _, array in outputs) // max(1, rows)
    return json_tensors.join_rows(
        (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)),
        json_tensors.PIECE_VALUES // max(1, row_size) or 1,
    )
