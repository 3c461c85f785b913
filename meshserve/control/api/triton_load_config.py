"""Translate Triton's model configuration, JSON in a load request, to keys of a `models:` entry."""

from __future__ import annotations

from typing import Any

from meshserve import errors
from meshserve.control.api import rest_routes
from meshserve.storage import triton_config

RUNTIMES = {
    "onnxruntime": "onnx",
    "onnxruntime_onnx": "onnx",
    "pytorch": "torch",
    "pytorch_libtorch": "torch",
    "python": "python",
}
FOREST_RUNTIMES = {
    "xgboost": "xgboost",
    "xgboost_json": "xgboost",
    "xgboost_ubj": "xgboost",
    "lightgbm": "lightgbm",
}
DATATYPES = {"TYPE_STRING": "BYTES"}
Json = dict[str, Any]


def entry_from(text: str) -> Json:
    """Return the keys that a configuration sets; fields without a meaning here are ignored.

    Raises InvalidRequest if the text is no model configuration.
    """
    config = rest_routes.json_object(text, "`config`")
    try:
        return _entry(config)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise errors.InvalidRequest(f"`config` is not a model configuration: {error}") from None


def description_from(text: str) -> str:
    """Return the configuration as `ModelSpec.description`. Raises InvalidRequest.

    It has no labels, because no file of labels comes with it.
    """
    try:
        return triton_config.read_json(rest_routes.json_object(text, "`config`")).description({})
    except ValueError as error:
        raise errors.InvalidRequest(f"`config` is not a model configuration: {error}") from None


def _entry(config: Json) -> Json:
    entry: Json = {}
    runtime = _runtime(config)
    if runtime:
        entry["runtime"] = runtime
    # For Triton, `max_batch_size` 0 or none means that the model has no batch dimension.
    rows_max = int(config.get("max_batch_size", 0))
    entry["batching"] = rows_max > 0 and config.get("dynamic_batching") is not None
    if rows_max > 0:
        entry["max_batch_size"] = rows_max
    for triton_key, key in (("input", "inputs"), ("output", "outputs")):
        if config.get(triton_key):
            entry[key] = [_tensor(spec, is_batched=rows_max > 0) for spec in config[triton_key]]
    parameters = config.get("parameters", {})
    options = {key: parameter["string_value"] for key, parameter in parameters.items()}
    if options:
        entry["options"] = options
    return entry


def _runtime(config: Json) -> str:
    backend = config.get("backend") or config.get("platform") or ""
    if backend == "fil":
        model_type = config.get("parameters", {}).get("model_type", {}).get("string_value", "")
        return FOREST_RUNTIMES.get(model_type, "")
    return RUNTIMES.get(backend, "")


def _tensor(spec: Json, *, is_batched: bool) -> Json:
    triton_type = str(spec["data_type"])
    dims = [int(size) for size in spec.get("dims", ())]
    return {
        "name": str(spec["name"]),
        "datatype": DATATYPES.get(triton_type, triton_type.removeprefix("TYPE_")),
        # Triton's `dims` leave out the batch dimension.
        "shape": [-1, *dims] if is_batched else dims,
    }
