"""Asks a loaded model as the worker does: a body in, an answer's JSON out, nothing between."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from meshserve.core.interfaces import model_runtime
from meshserve.protocol import inference, rest, tensors, v1


def ask_v1(loaded: model_runtime.LoadedModel, document: object) -> dict[str, Any]:
    """Return the answer's document to a V1 body."""
    predicted = v1.decode_predict(json.dumps(document).encode(), loaded.signature)
    reply = _reply(loaded, predicted.call)
    answer: dict[str, Any] = json.loads(v1.encode_predict(reply, predicted))
    return answer


def predictions(loaded: model_runtime.LoadedModel, instances: object) -> Any:
    """Return the predictions for V1 instances."""
    return ask_v1(loaded, {"instances": instances})["predictions"]


def ask_v2(
    loaded: model_runtime.LoadedModel, *inputs: tuple[str, str, Any], outputs: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the outputs' nested values by name, for inputs (name, datatype, values) in JSON."""
    document = {
        "inputs": [
            {
                "name": name,
                "datatype": datatype,
                "shape": list(np.shape(values)),
                "data": np.asarray(values, dtype=object).ravel().tolist(),
            }
            for name, datatype, values in inputs
        ],
        "outputs": [{"name": name} for name in outputs],
    }
    rest_call = rest.decode_infer(json.dumps(document).encode(), ())
    reply = _reply(loaded, rest_call.call)
    _, body = rest.encode_infer(reply, rest_call)
    return {
        output["name"]: np.reshape(np.array(output["data"], dtype=object), output["shape"]).tolist()
        for output in json.loads(body)["outputs"]
    }


def _reply(loaded: model_runtime.LoadedModel, call: inference.InferCall) -> inference.InferReply:
    inputs = inference.check_inputs(call, loaded.signature)
    outputs = loaded.predict(inputs, call.outputs)
    signature = tensors.answered(loaded.signature, outputs)
    return inference.InferReply("m", "1", "", outputs, signature)
