"""The status and metadata of a model in the form of TensorFlow Serving's REST API.

Source: https://www.tensorflow.org/tfx/serving/api_rest. KServe's V1 status is in the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meshserve.core.values import model
from meshserve.protocol import model_description

# Names of tensorflow/core/framework/types.proto.
DTYPES = {
    "BOOL": "DT_BOOL",
    "INT8": "DT_INT8",
    "INT16": "DT_INT16",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "UINT8": "DT_UINT8",
    "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64",
    "FP16": "DT_HALF",
    "BF16": "DT_BFLOAT16",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING",
}
METHOD = "tensorflow/serving/predict"
SIGNATURE = "serving_default"


def status_json(name: str, versions: Mapping[str, bool], *, is_ready: bool) -> dict[str, Any]:
    """Return a model's status; `versions` says which versions are ready, by version."""
    return {
        "name": name,
        "ready": is_ready,
        "model_version_status": [
            {
                "version": version,
                "state": "AVAILABLE" if is_version_ready else "END",
                "status": {
                    "error_code": "OK" if is_version_ready else "FAILED_PRECONDITION",
                    "error_message": "" if is_version_ready else "the last load failed",
                },
            }
            for version, is_version_ready in versions.items()
        ],
    }


def metadata_json(description: model_description.ServedModel) -> dict[str, Any]:
    """Return a model's signature in the form of a SavedModel's."""
    signature = description.signature
    default = {
        "inputs": _tensors(signature.inputs),
        "outputs": _tensors(signature.outputs),
        "method_name": METHOD,
    }
    return {
        "model_spec": {
            "name": description.id.name,
            "signature_name": "",
            "version": description.id.version,
        },
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: default}}},
    }


def _tensors(specs: Sequence[model.TensorSpec]) -> dict[str, Any]:
    return {
        spec.name: {
            "name": spec.name,
            "dtype": DTYPES.get(spec.datatype, "DT_INVALID"),
            "tensor_shape": {
                # As a text, which is how protobuf's JSON writes numbers of 64 bits.
                "dim": [{"size": str(size), "name": ""} for size in spec.shape],
                # Only the names of such inputs are known.
                "unknown_rank": not spec.datatype,
            },
        }
        for spec in specs
    }
