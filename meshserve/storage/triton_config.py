"""Reads what meshserve can honour of Triton's `config.pbtxt`; everything else in it is ignored.

The format is documented in `docs/user_guide/model_configuration.md` of the Triton server.
"""

from __future__ import annotations

from google.protobuf import text_format

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


def read(text: str) -> model_metadata.ModelDeclaration:
    """Return what the configuration declares.

    Raises ValueError with what is wrong, and in which line if that is known.
    """
    config = _parsed(text)
    if config.HasField("ensemble_scheduling") or config.platform == "ensemble":
        raise ValueError("ensembles are not served")
    rows_max = config.max_batch_size
    if rows_max < 0:
        raise ValueError(f"max_batch_size: expected a whole number, got {rows_max}")
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
    )


def _parsed(text: str) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, config, descriptor_pool=POOL, allow_unknown_field=True)
    except text_format.ParseError as error:
        place, _, reason = str(error).rpartition(" : ")
        line = f"line {error.GetLine()}: " if error.GetLine() else ""
        raise ValueError(f"{line}{reason if place else error}") from None
    except RecursionError:
        raise ValueError("too many messages in each other") from None
    return config


def _tensor(
    tensor: model_config_pb2.ModelInput | model_config_pb2.ModelOutput, has_batch_dimension: bool
) -> model.TensorSpec:
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
            return model_metadata.VersionPolicy(latest=policy.latest.num_versions or 1)
    return model_metadata.VersionPolicy()
