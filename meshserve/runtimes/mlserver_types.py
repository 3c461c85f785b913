"""Payloads, settings and errors of MLServer's Python API, for models where it is not installed.

Fields and names are those of `mlserver.types`, `mlserver.settings` and `mlserver.errors` of
MLServer 1.7 (https://docs.seldon.ai/mlserver/reference/python-api).
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic

Status = int


class Payload(pydantic.BaseModel):
    """A payload; its dumps leave out what was not set."""

    model_config = pydantic.ConfigDict(protected_namespaces=(), use_enum_values=True)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Return the fields by name, as pydantic does with the same options."""
        return super().model_dump(**{"exclude_unset": True, "exclude_none": True, **options})

    def model_dump_json(self, **options: Any) -> str:
        """Return the fields as JSON, as pydantic does with the same options."""
        return super().model_dump_json(**{"exclude_unset": True, "exclude_none": True, **options})


class Datatype(enum.Enum):
    """The protocol's datatypes."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"


class Parameters(Payload):
    """What is said of a payload besides its data; other fields may be set too."""

    model_config = pydantic.ConfigDict(extra="allow")

    content_type: str | None = None
    headers: dict[str, Any] | None = None


class TensorData(pydantic.RootModel[Any]):
    """A tensor's values: a list, nested or not, or a single value."""

    root: Any

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return iter(self.root)

    def __getitem__(self, place: Any) -> Any:
        return self.root[place]

    def __len__(self) -> int:
        return len(self.root)


class MetadataTensor(Payload):
    """A tensor that a model declares."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: Parameters | None = None


class RequestInput(Payload):
    """One input of a request."""

    name: str
    shape: list[int]
    datatype: Datatype
    parameters: Parameters | None = None
    data: TensorData


class RequestOutput(Payload):
    """An output that a request asks for."""

    name: str
    parameters: Parameters | None = None


class ResponseOutput(Payload):
    """One output of an answer."""

    name: str
    shape: list[int]
    datatype: Datatype
    parameters: Parameters | None = None
    data: TensorData


class PayloadRequest(Payload):
    """A request: MLServer's `InferenceRequest`."""

    id: str | None = None
    parameters: Parameters | None = None
    inputs: list[RequestInput]
    outputs: list[RequestOutput] | None = None


class PayloadResponse(Payload):
    """An answer: MLServer's `InferenceResponse`."""

    model_name: str
    model_version: str | None = None
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[ResponseOutput]


class MetadataModelResponse(Payload):
    """What a model tells of itself."""

    name: str
    versions: list[str] | None = None
    platform: str
    inputs: list[MetadataTensor] | None = None
    outputs: list[MetadataTensor] | None = None
    parameters: Parameters | None = None


class ModelParameters(pydantic.BaseModel):
    """`parameters` of a model's settings; other fields may be set too."""

    model_config = pydantic.ConfigDict(extra="allow", protected_namespaces=())

    uri: str | None = None
    version: str | None = None
    environment_path: str | None = None
    environment_tarball: str | None = None
    inference_pool_gid: str | None = None
    autogenerate_inference_pool_gid: bool = False
    format: str | None = None
    content_type: str | None = None
    # pydantic copies defaults, so that no two objects share this one.
    extra: dict[str, Any] | None = {}


class ModelSettings(pydantic.BaseModel):
    """A model's settings: the content of `model-settings.json`."""

    model_config = pydantic.ConfigDict(extra="ignore", protected_namespaces=())

    _source: str | None = None

    implementation: Any = None
    name: str = ""
    platform: str = ""
    versions: list[str] = []
    inputs: list[MetadataTensor] = []
    outputs: list[MetadataTensor] = []
    max_batch_size: int = 0
    max_batch_time: float = 0.0
    parameters: ModelParameters | None = None
    cache_enabled: bool = False

    @classmethod
    def parse_file(cls, path: str | Path) -> ModelSettings:  # type: ignore[override]
        """Return the settings in a file, which they remember. Raises ValueError."""
        settings = cls.model_validate(json.loads(Path(path).read_text()))
        settings._source = str(path)  # noqa: SLF001 its own
        return settings

    @property
    def version(self) -> str | None:
        """The version in the parameters, None without one."""
        return self.parameters.version if self.parameters is not None else None


class MLServerError(Exception):
    """An error that a model raises for its caller, with an HTTP status."""

    def __init__(self, msg: str, status_code: Status = 400) -> None:
        super().__init__(msg)
        self.status_code = status_code


class InvalidModelURI(MLServerError):
    """The settings have no `uri`, or there is nothing at it."""

    def __init__(self, name: str, model_uri: str | None = None) -> None:
        place = f" ({model_uri})" if model_uri else ""
        super().__init__(f"Invalid URI specified for model {name}{place}", 422)


class InferenceError(MLServerError):
    """A prediction failed by its caller's fault."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg, 400)


class ModelParametersMissing(MLServerError):
    """The settings lack parameters that the model needs."""

    def __init__(self, model_name: str) -> None:
        super().__init__(f"Parameters missing for model {model_name}", 400)
