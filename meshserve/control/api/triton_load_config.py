"""Triton's model configuration, given as JSON in a load request, as the keys of a `models:` entry."""

from __future__ import annotations

from typing import Any

import orjson

from meshserve import errors

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
    """The keys that the configuration sets. What has no meaning here is passed over. Raises InvalidRequest."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise errors.InvalidRequest(f"`config` is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise errors.InvalidRequest("`config` must be a JSON object")
    try:
        return _entry(found)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise errors.InvalidRequest(f"`config` is not a model configuration: {error}") from None


def _entry(found: Json) -> Json:
    entry: Json = {}
    runtime = _runtime(found)
    if runtime:
        entry["runtime"] = runtime
    rows_max = int(found.get("max_batch_size", 0))
    if "max_batch_size" in found:
        entry["batching"] = rows_max > 0
        entry["max_batch_size"] = max(rows_max, 1)
    for key, side in (("input", "inputs"), ("output", "outputs")):
        if found.get(key):
            entry[side] = [_tensor(each, is_batched=rows_max > 0) for each in found[key]]
    options = {key: each["string_value"] for key, each in found.get("parameters", {}).items()}
    if options:
        entry["options"] = options
    return entry


def _runtime(found: Json) -> str:
    kind = found.get("backend") or found.get("platform") or ""
    if kind == "fil":
        model_type = found.get("parameters", {}).get("model_type", {}).get("string_value", "")
        return FOREST_RUNTIMES.get(model_type, "")
    return RUNTIMES.get(kind, "")


def _tensor(found: Json, *, is_batched: bool) -> Json:
    kind = str(found["data_type"])
    dims = [int(size) for size in found.get("dims", ())]
    datatype = DATATYPES.get(kind, kind.removeprefix("TYPE_"))
    return {
        "name": str(found["name"]),
        "datatype": datatype,
        "shape": [-1, *dims] if is_batched else dims,
    }
