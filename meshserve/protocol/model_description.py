"""What is told about models: messages for gRPC, and the same as JSON for REST."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from meshserve.core.values import model, model_stats
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import model_config_pb2 as config_pb

TRITON_TYPES = {"BYTES": "TYPE_STRING"}
NONE = pb.StatisticDuration()

Told = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model as its callers may know it. `max_batch_size` is 0 for a model whose requests are not joined."""

    id: model.ModelId
    versions: tuple[str, ...]
    signature: model.Signature
    platform: str
    max_batch_size: int = 0


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """One model's numbers and the memory that its copy takes."""

    id: model.ModelId
    counts: model_stats.ModelStats
    footprint: model.Footprint


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One registered version. `state` is a word of Triton: READY, LOADING, UNLOADING or UNAVAILABLE."""

    id: model.ModelId
    state: str
    reason: str = ""


def metadata_message(about: ModelDescription) -> pb.ModelMetadataResponse:
    """ModelMetadata's answer."""
    return pb.ModelMetadataResponse(
        name=about.id.name,
        versions=about.versions,
        platform=about.platform,
        inputs=_tensors(about.signature.inputs),
        outputs=_tensors(about.signature.outputs),
    )


def _tensors(specs: Sequence[model.TensorSpec]) -> list[pb.ModelMetadataResponse.TensorMetadata]:
    return [
        pb.ModelMetadataResponse.TensorMetadata(
            name=spec.name, datatype=spec.datatype, shape=spec.shape
        )
        for spec in specs
    ]


def metadata_json(about: ModelDescription) -> dict[str, Any]:
    """The same for REST."""
    return to_json(metadata_message(about))


def config_message(about: ModelDescription) -> pb.ModelConfigResponse:
    """ModelConfig's answer: as in Triton, dimensions leave the batch out where `max_batch_size` is not 0."""
    skipped = 1 if about.max_batch_size else 0
    config = config_pb.ModelConfig(
        name=about.id.name,
        platform=about.platform,
        backend=about.platform,
        max_batch_size=about.max_batch_size,
    )
    for spec in about.signature.inputs:
        config.input.add(
            name=spec.name, data_type=_triton_type(spec.datatype), dims=spec.shape[skipped:]
        )
    for spec in about.signature.outputs:
        config.output.add(
            name=spec.name, data_type=_triton_type(spec.datatype), dims=spec.shape[skipped:]
        )
    if about.max_batch_size:
        config.dynamic_batching.SetInParent()
    return pb.ModelConfigResponse(config=config)


def _triton_type(datatype: str) -> Any:
    return config_pb.DataType.Value(TRITON_TYPES.get(datatype, f"TYPE_{datatype}"))


def config_json(about: ModelDescription) -> dict[str, Any]:
    """The same for REST."""
    return to_json(config_message(about).config)


def statistics_message(all_of: Iterable[ModelStatistics]) -> pb.ModelStatisticsResponse:
    """ModelStatistics' answer."""
    return pb.ModelStatisticsResponse(model_stats=[_statistics(each) for each in all_of])


def _statistics(about: ModelStatistics) -> pb.ModelStatistics:
    counts = about.counts
    message = pb.ModelStatistics(
        name=about.id.name,
        version=about.id.version,
        last_inference=counts.last_ms,
        inference_count=counts.rows,
        execution_count=counts.computed.count,
        inference_stats=_durations(counts),
        memory_usage=[pb.MemoryUsage(type="CPU", id=0, byte_size=about.footprint.host_bytes)],
    )
    if about.footprint.gpu_bytes:
        message.memory_usage.add(type="GPU", id=0, byte_size=about.footprint.gpu_bytes)
    for size, span in sorted(counts.batches.items()):
        message.batch_stats.add(
            batch_size=size, compute_infer=_duration(span), compute_input=NONE, compute_output=NONE
        )
    return message


def _durations(counts: model_stats.ModelStats) -> pb.InferStatistics:
    """Copying in and out is part of computing here, and there is no cache: load generators read these all the same."""
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


def statistics_json(all_of: Iterable[ModelStatistics]) -> dict[str, Any]:
    """The same for REST."""
    return to_json(statistics_message(all_of))


def index_message(models: Iterable[IndexEntry]) -> pb.RepositoryIndexResponse:
    """RepositoryIndex's answer."""
    entry = pb.RepositoryIndexResponse.ModelIndex
    return pb.RepositoryIndexResponse(
        models=[
            entry(name=each.id.name, version=each.id.version, state=each.state, reason=each.reason)
            for each in models
        ]
    )


def index_json(models: Iterable[IndexEntry]) -> list[dict[str, str]]:
    """The same for REST."""
    return [to_json(each) for each in index_message(models).models]


def to_json(message: Message) -> dict[str, Any]:
    """A message as Triton's REST tells it: every number is there and none is a string; parts that are not set are left out."""
    steps = _steps(message.DESCRIPTOR)
    return {
        name: told(getattr(message, name))
        for name, may_miss, told in steps
        if not may_miss or message.HasField(name)
    }


@functools.cache
def _steps(of: Descriptor) -> Sequence[tuple[str, bool, Told]]:
    """Each field's name, whether it can be unset, and how its value is told."""
    return [
        (field.name, field.has_presence, _repeated(field) if field.is_repeated else _one(field))
        for field in of.fields
    ]


def _repeated(field: Any) -> Told:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = _one(field.message_type.fields_by_name["value"])
        return lambda found: {key: value(found[key]) for key in found}
    one = _one(field)
    return lambda found: [one(each) for each in found]


def _one(field: Any) -> Told:
    if field.enum_type is not None:
        numbers = field.enum_type.values_by_number
        return lambda found: numbers[found].name
    return to_json if field.message_type is not None else _same


def _same(found: Any) -> Any:
    return found
