"""Describe models: metadata, configuration, statistics and index, for gRPC and REST."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from meshserve.core.values import model, model_stats
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import model_config_pb2 as config_pb
from meshserve.protocol.pb import pool

TRITON_TYPES = {"BYTES": "TYPE_STRING"}
BACKENDS = {"onnxruntime_onnx": "onnxruntime", "pytorch_libtorch": "pytorch"}
"""Triton's backend for each platform whose backend has another name."""
PLATFORMS = {backend: platform for platform, backend in BACKENDS.items()} | {"python": ""}
NONE = pb.StatisticDuration()

FieldToJson = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as clients see it. `max_batch_size` is 0 if it has no batch dimension.

    `is_joined`: requests share runs now. `config` is Triton's model configuration as its owner
    wrote it, in JSON, or empty.
    """

    id: model.ModelId
    versions: tuple[str, ...]
    signature: model.Signature
    platform: str
    max_batch_size: int = 0
    config: str = ""
    is_joined: bool = False


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """One model's counters and the memory that its copy takes."""

    id: model.ModelId
    counts: model_stats.ModelStats
    footprint: model.Footprint


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One registered version. `state` is Triton's: READY, LOADING, UNLOADING or UNAVAILABLE."""

    id: model.ModelId
    state: str
    reason: str = ""


def metadata_message(description: ServedModel) -> pb.ModelMetadataResponse:
    """Return the answer of ModelMetadata."""
    signature = description.signature
    message = pb.ModelMetadataResponse(
        name=description.id.name,
        versions=description.versions,
        platform=description.platform,
        inputs=_tensors(signature.inputs),
        outputs=_tensors(signature.outputs),
    )
    is_undeclared = signature.is_open and not signature.inputs
    if signature.table is not None or signature.has_open_inputs or is_undeclared:
        message.has_loose_inputs = True
    return message


def _tensors(specs: Sequence[model.TensorSpec]) -> list[pb.ModelMetadataResponse.TensorMetadata]:
    return [
        pb.ModelMetadataResponse.TensorMetadata(
            name=spec.name, datatype=spec.datatype, shape=spec.shape
        )
        for spec in specs
    ]


def metadata_json(description: ServedModel) -> dict[str, Any]:
    """Return the model's metadata for REST."""
    return to_json(metadata_message(description))


def config_message(description: ServedModel) -> pb.ModelConfigResponse:
    """Return ModelConfig's answer: the owner's configuration, completed with what it leaves out.

    As in Triton, `dims` lack the batch if `max_batch_size` is not 0.
    """
    if description.config:
        # In our own pool, because the default one may hold tritonclient's messages of these names.
        config = json_format.Parse(
            description.config, config_pb.ModelConfig(), descriptor_pool=pool.POOL
        )
    else:
        config = config_pb.ModelConfig(max_batch_size=description.max_batch_size)
        # Load generators read from this whether the server joins requests.
        if description.is_joined:
            config.dynamic_batching.SetInParent()
    config.name = description.id.name
    if not config.backend:
        platform = config.platform or description.platform
        config.backend = BACKENDS.get(platform, platform)
    if not config.platform:
        other = "" if description.config else config.backend
        config.platform = PLATFORMS.get(config.backend, other)
    skipped = 1 if config.max_batch_size else 0
    if not config.input:
        _add_tensors(config.input, description.signature.inputs, skipped)
    if not config.output:
        _add_tensors(config.output, description.signature.outputs, skipped)
    return pb.ModelConfigResponse(config=config)


def _add_tensors(tensors: Any, specs: Sequence[model.TensorSpec], skipped: int) -> None:
    for spec in specs:
        tensors.add(
            name=spec.name, data_type=_triton_type(spec.datatype), dims=spec.shape[skipped:]
        )


def _triton_type(datatype: str) -> Any:
    name = TRITON_TYPES.get(datatype, f"TYPE_{datatype}") if datatype else "TYPE_INVALID"
    return config_pb.DataType.Value(name)


def config_json(description: ServedModel) -> dict[str, Any]:
    """Return the model's configuration for REST."""
    return to_json(config_message(description).config)


def statistics_message(models: Iterable[ModelStatistics]) -> pb.ModelStatisticsResponse:
    """Return the answer of ModelStatistics."""
    return pb.ModelStatisticsResponse(
        model_stats=[_statistics(statistics) for statistics in models]
    )


def _statistics(statistics: ModelStatistics) -> pb.ModelStatistics:
    counts = statistics.counts
    message = pb.ModelStatistics(
        name=statistics.id.name,
        version=statistics.id.version,
        last_inference=counts.last_ms,
        inference_count=counts.rows,
        execution_count=counts.computed.count,
        inference_stats=_durations(counts),
        memory_usage=[pb.MemoryUsage(type="CPU", id=0, byte_size=statistics.footprint.host_bytes)],
    )
    if statistics.footprint.gpu_bytes:
        message.memory_usage.add(type="GPU", id=0, byte_size=statistics.footprint.gpu_bytes)
    for size, span in sorted(counts.batches.items()):
        message.batch_stats.add(
            batch_size=size, compute_infer=_duration(span), compute_input=NONE, compute_output=NONE
        )
    return message


def _durations(counts: model_stats.ModelStats) -> pb.InferStatistics:
    """Return the durations; those that are not measured here are 0, for load generators."""
    return pb.InferStatistics(
        success=_duration(counts.success),
        fail=_duration(counts.failure),
        queue=_duration(counts.queued),
        compute_infer=_duration(counts.computed),
        compute_input=NONE,
        compute_output=NONE,
        cache_hit=NONE,
        cache_miss=NONE,
    )


def _duration(span: model_stats.DurationStat) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=span.count, ns=int(span.total_s * 1e9))


def statistics_json(models: Iterable[ModelStatistics]) -> dict[str, Any]:
    """Return the models' statistics for REST."""
    return to_json(statistics_message(models))


def index_message(models: Iterable[IndexEntry]) -> pb.RepositoryIndexResponse:
    """Return the answer of RepositoryIndex."""
    index = pb.RepositoryIndexResponse.ModelIndex
    return pb.RepositoryIndexResponse(
        models=[
            index(
                name=model_.id.name,
                version=model_.id.version,
                state=model_.state,
                reason=model_.reason,
            )
            for model_ in models
        ]
    )


def index_json(models: Iterable[IndexEntry]) -> list[dict[str, str]]:
    """Return the index for REST."""
    return [to_json(entry) for entry in index_message(models).models]


def to_json(message: Message) -> dict[str, Any]:
    """Return a message as Triton's REST writes it: with all numbers, without unset messages.

    protobuf's own JSON leaves out zeros and writes 64-bit numbers as strings.
    """
    fields = _fields(message.DESCRIPTOR)
    return {
        name: convert(getattr(message, name))
        for name, has_presence, convert in fields
        if not has_presence or message.HasField(name)
    }


# Once for each type: an index or statistics may have a message for each of thousands of models.
@functools.cache
def _fields(descriptor: Descriptor) -> Sequence[tuple[str, bool, FieldToJson]]:
    """Return each field's name, whether it can be unset, and the conversion of its value."""
    return [
        (field.name, field.has_presence, _repeated(field) if field.is_repeated else _single(field))
        for field in descriptor.fields
    ]


def _repeated(field: Any) -> FieldToJson:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        convert = _single(field.message_type.fields_by_name["value"])
        return lambda values: {key: convert(values[key]) for key in values}
    convert = _single(field)
    return lambda values: [convert(value) for value in values]


def _single(field: Any) -> FieldToJson:
    if field.enum_type is not None:
        numbers = field.enum_type.values_by_number
        return lambda number: numbers[number].name
    return to_json if field.message_type is not None else _same


def _same(value: Any) -> Any:
    return value
