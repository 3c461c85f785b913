"""Reads Triton's `config.pbtxt`, or the same configuration as JSON.

What meshserve can't honour is shown to clients in ModelConfig, or refused if it would change
answers. The format is documented in `docs/user_guide/model_configuration.md` of the Triton server.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from google.protobuf import json_format, text_format

from meshserve.core.values import model
from meshserve.protocol.pb import model_config_pb2
from meshserve.protocol.pb.pool import POOL
from meshserve.storage import model_metadata

FILE = "config.pbtxt"
RUNTIMES = {
    "onnxruntime": "onnx",
    "onnxruntime_onnx": "onnx",
    "pytorch": "torch",
    "pytorch_libtorch": "torch",
    "python": "python",
    "fil": "",
}
"""Our runtimes by Triton's backend or platform; FIL's models are recognised by their files.

Other names are kept, because a third party's runtime may have them.
"""

LABEL_BYTES_MAX = 1 << 20

Tensor = model_config_pb2.ModelInput | model_config_pb2.ModelOutput


def read(text: str) -> model_metadata.ModelDeclaration:
    """Return what the configuration declares.

    Raises ValueError with what is wrong, and in which line if that is known.
    """
    return declaration(_parsed(text))


def read_json(document: dict[str, Any]) -> model_metadata.ModelDeclaration:
    """Return what a configuration in protobuf's JSON declares. Raises ValueError."""
    try:
        config = json_format.ParseDict(
            document,
            model_config_pb2.ModelConfig(),
            ignore_unknown_fields=True,
            descriptor_pool=POOL,
        )
    except json_format.ParseError as error:
        raise ValueError(str(error)) from None
    return declaration(config)


def declaration(config: model_config_pb2.ModelConfig) -> model_metadata.ModelDeclaration:
    """Return what a configuration declares. Raises ValueError with what is wrong."""
    _check_served(config)
    rows_max = config.max_batch_size
    has_batch_dimension = rows_max > 0
    runtime = config.backend or config.platform
    return model_metadata.ModelDeclaration(
        name=config.name,
        runtime=RUNTIMES.get(runtime, runtime),
        inputs=tuple(_tensor(tensor, has_batch_dimension) for tensor in config.input),
        outputs=tuple(_tensor(tensor, has_batch_dimension) for tensor in config.output),
        max_batch_size=rows_max if has_batch_dimension else None,
        # As in Triton, a missing number is 0: no batch dimension, and nothing is joined.
        batching=has_batch_dimension and config.HasField("dynamic_batching"),
        versions=_versions(config.version_policy),
        options={"file": config.default_model_filename} if config.default_model_filename else {},
        # In the file's own names, as Triton's clients read them, and not in camel case.
        config=json_format.MessageToJson(
            config, preserving_proto_field_name=True, indent=None, descriptor_pool=POOL
        ),
        label_files=_label_files(config),
    )


def _check_served(config: model_config_pb2.ModelConfig) -> None:
    """Raise ValueError for what would make Triton's answers other than ours."""
    if config.HasField("ensemble_scheduling") or config.platform == "ensemble":
        raise ValueError("ensembles are not served")
    if config.HasField("sequence_batching"):
        raise ValueError("sequence_batching is not offered: each request is on its own")
    if config.model_transaction_policy.decoupled:
        raise ValueError("decoupled models are not served: a request has one answer")
    if (
        config.batch_input
        or config.batch_output
        or any(tensor.allow_ragged_batch for tensor in config.input)
    ):
        raise ValueError("ragged batches (batch_input, allow_ragged_batch) are not offered")
    if config.max_batch_size < 0:
        raise ValueError(f"max_batch_size: expected a whole number, got {config.max_batch_size}")
    tensors: list[Tensor] = [*config.input, *config.output]
    for tensor in tensors:
        if tensor.HasField("reshape"):
            _check_reshape(tensor)


def _check_reshape(tensor: Tensor) -> None:
    """Raise ValueError if `reshape` can't hold the elements of `dims`, as Triton demands it."""
    dims, shape = list(tensor.dims), list(tensor.reshape.shape)
    if _products(dims) != _products(shape):
        raise ValueError(
            f"tensor {tensor.name!r}: dims {dims} can't be reshaped to {shape}: "
            "the sizes between those of -1 must have the same products"
        )


def _products(sizes: list[int]) -> list[int]:
    """Return the product of the sizes before, between and after those of -1."""
    products = [1]
    for size in sizes:
        if size < 0:
            products.append(1)
        else:
            products[-1] *= size
    return products


def _label_files(config: model_config_pb2.ModelConfig) -> dict[str, str]:
    files = {
        tensor.name: tensor.label_filename for tensor in config.output if tensor.label_filename
    }
    for name, file in files.items():
        # Clients are shown the labels, so the name must not lead to another file of the machine.
        if PurePath(file).is_absolute() or ".." in PurePath(file).parts:
            raise ValueError(
                f"output {name!r}: label_filename {file!r} must lie in the model's folder"
            )
    return files


def read_labels(folder: Path, label_files: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the labels by output: the lines of the files in the model's folder.

    Raises ValueError for a file that is missing, outside the folder, too big or no text.
    """
    return {output: _read_lines(folder, name) for output, name in label_files.items()}


def _read_lines(folder: Path, name: str) -> list[str]:
    file = folder / name
    if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"label_filename: there is no file {name!r} in the model's folder")
    with file.open("rb") as stream:
        return label_lines(stream.read(LABEL_BYTES_MAX + 1), name)


def label_lines(text: bytes, name: str) -> list[str]:
    """Return the labels in the text of the file `name`. Raises ValueError if it is too big."""
    if len(text) > LABEL_BYTES_MAX:
        raise ValueError(f"label_filename: {name} is bigger than {LABEL_BYTES_MAX} bytes")
    return text.decode().splitlines()


def _parsed(text: str) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig()
    try:
        # Configurations may be newer than our copy of the schema.
        text_format.Parse(text, config, descriptor_pool=POOL, allow_unknown_field=True)
    except text_format.ParseError as error:
        place, _, reason = str(error).rpartition(" : ")
        line = f"line {error.GetLine()}: " if error.GetLine() else ""
        raise ValueError(f"{line}{reason if place else error}") from None
    except RecursionError:
        raise ValueError("too many messages in each other") from None
    return config


def _tensor(tensor: Tensor, has_batch_dimension: bool) -> model.TensorSpec:
    types = model_config_pb2.DataType.DESCRIPTOR.values_by_number
    word = types[tensor.data_type].name.removeprefix("TYPE_") if tensor.data_type in types else ""
    shape = [-1] * has_batch_dimension + list(tensor.dims)
    return model_metadata.tensor(tensor.name, "BYTES" if word == "STRING" else word, shape)


def _versions(policy: model_config_pb2.ModelVersionPolicy) -> model_metadata.VersionPolicy:
    match policy.WhichOneof("policy_choice"):
        case "specific":
            return model_metadata.VersionPolicy(
                listed=frozenset(map(str, policy.specific.versions))
            )
        case "latest":
            # proto3 gives 0 for a missing number, for which Triton serves one version.
            return model_metadata.VersionPolicy(latest=policy.latest.num_versions or 1)
    return model_metadata.VersionPolicy()
