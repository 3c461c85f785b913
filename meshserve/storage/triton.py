"""Triton's `config.pbtxt`, as far as it says what meshserve can honour; everything else in it is passed over."""

from __future__ import annotations

from meshserve.core.values import model
from meshserve.storage import model_metadata, text_format
from meshserve.storage.text_format import Message, Value

FILE = "config.pbtxt"
RUNTIMES = {
    "onnxruntime": "onnx",
    "onnxruntime_onnx": "onnx",
    "pytorch": "torch",
    "pytorch_libtorch": "torch",
    "python": "python",
    "fil": "",
}
"""Backends and platforms whose models a runtime here loads; FIL's are told apart by their files. Any other is kept as it is."""
TYPES = (
    None,
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
    "BF16",
)
"""By the numbers of `inference.DataType`."""


def read(text: str) -> model_metadata.ModelDescription:
    """What the configuration declares. Raises ValueError with what is wrong, and in which line where that is known."""
    config = text_format.parse(text)
    if "ensemble_scheduling" in config or _text(config, "platform") == "ensemble":
        raise ValueError("ensembles are not served")
    rows = _count(config, "max_batch_size")
    has_batch_dimension = bool(rows)
    file = _text(config, "default_model_filename")
    return model_metadata.ModelDescription(
        name=_text(config, "name"),
        runtime=_runtime(config),
        inputs=tuple(_tensor(each, has_batch_dimension) for each in config.get("input", ())),
        outputs=tuple(_tensor(each, has_batch_dimension) for each in config.get("output", ())),
        max_batch_size=rows or None,
        batching=None if rows is None else has_batch_dimension and "dynamic_batching" in config,
        versions=_versions(config),
        options={"file": file} if file else {},
    )


def _runtime(config: Message) -> str:
    named = _text(config, "backend") or _text(config, "platform")
    return RUNTIMES.get(named, named)


def _tensor(value: Value, has_batch_dimension: bool) -> model.TensorSpec:
    fields = _message(value)
    shape = [-1] * has_batch_dimension + list(fields.get("dims", ()))
    return model_metadata.tensor(
        _text(fields, "name"), _datatype(fields.get("data_type", [0])[-1]), shape
    )


def _datatype(value: Value) -> object:
    if isinstance(value, int):
        return TYPES[value] if 0 <= value < len(TYPES) else value
    word = str(value).removeprefix("TYPE_")
    return "BYTES" if word == "STRING" else word


def _versions(config: Message) -> model_metadata.Versions:
    policy = _message(config.get("version_policy", [{}])[-1])
    if "specific" in policy:
        listed = _message(policy["specific"][-1]).get("versions", ())
        return model_metadata.Versions(listed=frozenset(str(version) for version in listed))
    if "latest" in policy:
        return model_metadata.Versions(
            latest=_count(_message(policy["latest"][-1]), "num_versions") or 1
        )
    return model_metadata.Versions()


def _message(value: Value) -> Message:
    if isinstance(value, (str, int, float)):
        raise ValueError(f"expected a message in {{}}, got {value!r}")  # noqa: TRY004  # the text's fault, not the caller's
    return value


def _text(fields: Message, name: str) -> str:
    value = fields.get(name, [""])[-1]
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected a text, got {value!r}")  # noqa: TRY004  # the text's fault, not the caller's
    return value


def _count(fields: Message, name: str) -> int | None:
    if name not in fields:
        return None
    value = fields[name][-1]
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{name}: expected a whole number, got {value!r}")
    return value
