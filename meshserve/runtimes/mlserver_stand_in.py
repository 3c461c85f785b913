"""A stand-in for the package `mlserver`, with what its models' classes import.

It is imported only when such a class is loaded where MLServer is not installed: it needs pydantic,
which takes 7 MiB of each process.
"""

from __future__ import annotations

import contextvars
import logging
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from meshserve.runtimes import mlserver_codecs, mlserver_requests, mlserver_types

NAME = "mlserver"
VERSION = "1.7.1"
"""The version of MLServer whose API this is."""

logger = logging.getLogger(NAME)


class MLModel:
    """The base class of MLServer's models."""

    def __init__(self, settings: mlserver_types.ModelSettings) -> None:
        self._settings = settings
        self.ready = False

    async def load(self) -> bool:
        """Load the model; return whether it is ready."""
        return True

    async def predict(self, payload: Any) -> Any:
        """Return the answer to a request. Raises NotImplementedError unless it is written."""
        raise NotImplementedError("predict() method not implemented")

    async def predict_stream(self, payloads: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Yield the answer to the first request."""
        async for payload in payloads:
            yield await self.predict(payload)
            return

    async def unload(self) -> bool:
        """Free what the model holds; return whether it is unloaded."""
        return True

    @property
    def name(self) -> str:
        """The model's name."""
        return self._settings.name

    @property
    def version(self) -> str | None:
        """The version in its settings."""
        return self._settings.version

    @property
    def settings(self) -> mlserver_types.ModelSettings:
        """Its settings."""
        return self._settings

    @property
    def inputs(self) -> list[mlserver_types.MetadataTensor]:
        """The inputs that it tells of; `load` may set them."""
        return self._settings.inputs

    @inputs.setter
    def inputs(self, value: list[mlserver_types.MetadataTensor]) -> None:
        """Set the inputs that it tells of."""
        self._settings.inputs = value

    @property
    def outputs(self) -> list[mlserver_types.MetadataTensor]:
        """The outputs that it tells of; `load` may set them."""
        return self._settings.outputs

    @outputs.setter
    def outputs(self, value: list[mlserver_types.MetadataTensor]) -> None:
        """Set the outputs that it tells of."""
        self._settings.outputs = value

    def decode(self, request_input: Any, default_codec: Any = None) -> Any:
        """Return an input's value by its content type or by the default, else its raw values."""
        declared = {tensor.name: tensor for tensor in self.inputs or ()}
        mlserver_requests.decode_request_input(request_input, declared)
        if mlserver_requests.has_decoded(request_input):
            return mlserver_requests.get_decoded(request_input)
        return default_codec.decode_input(request_input) if default_codec else request_input.data

    def decode_request(self, inference_request: Any, default_codec: Any = None) -> Any:
        """Return a request's value by its content type or by the default, else the request."""
        declared = {tensor.name: tensor for tensor in self.inputs or ()}
        mlserver_requests.decode_inference_request(inference_request, self._settings, declared)
        if mlserver_requests.has_decoded(inference_request):
            return mlserver_requests.get_decoded(inference_request)
        return (
            default_codec.decode_request(inference_request) if default_codec else inference_request
        )

    def encode(self, payload: Any, request_output: Any, default_codec: Any = None) -> Any:
        """Return a value as an output. Raises CodecNotFound."""
        declared = {tensor.name: tensor for tensor in self.outputs or ()}
        output = mlserver_requests.encode_response_output(payload, request_output, declared)
        if output is not None:
            return output
        if default_codec:
            return default_codec.encode_output(request_output.name, payload)
        raise mlserver_codecs.CodecNotFound(name=request_output.name)

    def encode_response(self, payload: Any, default_codec: Any = None) -> Any:
        """Return a value as an answer. Raises CodecNotFound."""
        response = mlserver_requests.encode_inference_response(payload, self._settings)
        if response is not None:
            return response
        if default_codec:
            return default_codec.encode_response(self.name, payload, self.version)
        raise mlserver_codecs.CodecNotFound(payload_type=str(type(payload)))

    async def metadata(self) -> mlserver_types.MetadataModelResponse:
        """Return what the model tells of itself."""
        settings = self._settings
        return mlserver_types.MetadataModelResponse(
            name=self.name,
            platform=settings.platform,
            versions=settings.versions,
            inputs=settings.inputs,
            outputs=settings.outputs,
        )


async def get_model_uri(settings: Any, wellknown_filenames: list[str] | None = None) -> str:
    """Return the path of the model's `uri`, from its settings' folder; other schemes as they are.

    In a folder it is the first of the well-known files that is there. Raises InvalidModelURI.
    """
    uri = settings.parameters.uri if settings.parameters is not None else None
    if not uri:
        raise mlserver_types.InvalidModelURI(settings.name)
    parts = urllib.parse.urlparse(uri, scheme="file")
    if parts.scheme != "file":
        return str(uri)
    return _found(to_absolute_path(settings, parts.path), settings.name, wellknown_filenames or ())


def _found(place: str, name: str, wellknown_filenames: Sequence[str]) -> str:
    path = Path(place)
    if not path.exists():
        raise mlserver_types.InvalidModelURI(name, place)
    files = (path / filename for filename in wellknown_filenames)
    return str(next((file for file in files if file.is_file()), path))


def to_absolute_path(model_settings: Any, uri: str) -> str:
    """Return a path that is written relative to the settings' folder."""
    source = model_settings._source  # noqa: SLF001 MLServer's own name
    return uri if source is None else str((Path(source).parent / uri).resolve())


class IgnoredMetric:
    """A metric of the model's own, which is not kept: the mesh's metrics are its own."""

    def observe(self, *_values: object) -> None:
        """Do nothing."""

    def labels(self, *_values: object, **_labels: object) -> IgnoredMetric:
        """Return the metric itself."""
        return self


def register(_name: str, _description: str) -> IgnoredMetric:
    """Return a metric that keeps nothing."""
    return IgnoredMetric()


def log(**_metrics: object) -> None:
    """Do nothing."""


def custom_handler(
    rest_path: str, rest_method: str = "POST"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator without effect, and warn: paths of a model's own are not served."""
    logger.warning("the path %s %s of a model is not served", rest_method, rest_path)
    return lambda method: method


def _module(name: str, contents: Mapping[str, object]) -> tuple[str, ModuleType]:
    full_name = f"{NAME}.{name}" if name else NAME
    module = ModuleType(full_name, __doc__)
    vars(module).update(contents)
    return full_name, module


_TYPES = {
    "InferenceRequest": mlserver_types.PayloadRequest,
    "InferenceResponse": mlserver_types.PayloadResponse,
    **{
        kind.__name__: kind
        for kind in (
            *(mlserver_types.Datatype, mlserver_types.Parameters, mlserver_types.TensorData),
            *(mlserver_types.RequestInput, mlserver_types.RequestOutput),
            *(mlserver_types.ResponseOutput, mlserver_types.MetadataTensor),
            mlserver_types.MetadataModelResponse,
        )
    },
}
_SETTINGS = {
    "ModelSettings": mlserver_types.ModelSettings,
    "ModelParameters": mlserver_types.ModelParameters,
}
_ERRORS = {
    kind.__name__: kind
    for kind in (
        *(mlserver_types.MLServerError, mlserver_types.InvalidModelURI),
        *(mlserver_types.InferenceError, mlserver_types.ModelParametersMissing),
    )
}
_CODECS: dict[str, Any] = {
    shown.__name__: shown
    for shown in (
        *(mlserver_codecs.CodecError, mlserver_codecs.CodecNotFound),
        *(mlserver_codecs.InputCodec, mlserver_codecs.RequestCodec),
        *(mlserver_codecs.NumpyCodec, mlserver_codecs.StringCodec, mlserver_codecs.Base64Codec),
        *(mlserver_codecs.DatetimeCodec, mlserver_requests.PandasCodec),
        *(mlserver_requests.NumpyRequestCodec, mlserver_requests.StringRequestCodec),
        *(mlserver_codecs.register_input_codec, mlserver_codecs.register_request_codec),
        *(mlserver_requests.SingleInputRequestCodec, mlserver_requests.decode_args),
        *(mlserver_requests.has_decoded, mlserver_requests.get_decoded),
        *(mlserver_requests.get_decoded_or_raw, mlserver_requests.decode_request_input),
        *(mlserver_requests.decode_inference_request, mlserver_requests.encode_response_output),
        mlserver_requests.encode_inference_response,
    )
}
_CODECS |= {
    # MLServer lacks these two: whoever looks for them knows whether this is the stand-in.
    "OWNER": mlserver_codecs.OWNER,
    "forget": mlserver_codecs.forget,
    "DecodedParameterName": mlserver_codecs.DECODED,
    "InputCodecLike": Any,
    "RequestCodecLike": Any,
    "InputOrOutput": Any,
    "is_list_of": mlserver_codecs.is_list_of,
    "as_list": mlserver_codecs.as_list,
    "encode_str": str.encode,
    "decode_str": mlserver_codecs.StringCodec.from_text,
}
_CONTEXT = {
    name: contextvars.ContextVar[str](name) for name in ("model_name_var", "model_version_var")
}
# Classes import from these modules too, of which each has all names here.
_PARTS_OF_CODECS = (
    *("base", "numpy", "pandas", "string", "base64", "datetime"),
    *("utils", "lists", "errors", "decorator"),
)


def modules() -> dict[str, ModuleType]:
    """Return the package's modules by name, each with what models import from it."""
    logging_ = {"logger": logger, "get_logger": lambda: logger}
    metrics = {"register": register, "log": log}
    top = {"MLModel": MLModel, "__version__": VERSION, **_SETTINGS, **metrics}
    by_name = dict(
        [
            _module("", top),
            _module("types", _TYPES),
            _module("settings", _SETTINGS),
            _module("errors", _ERRORS),
            _module("model", {"MLModel": MLModel}),
            _module(
                "utils", {"get_model_uri": get_model_uri, "to_absolute_path": to_absolute_path}
            ),
            _module("logging", logging_),
            _module("metrics", metrics),
            _module("context", _CONTEXT),
            _module("handlers", {"custom_handler": custom_handler}),
            _module("version", {"__version__": VERSION}),
            _module("codecs", _CODECS),
            *(_module(f"codecs.{part}", _CODECS) for part in _PARTS_OF_CODECS),
        ]
    )
    for name, module in by_name.items():
        above, _, last = name.rpartition(".")
        # A package has a path: without one, `import mlserver.more` would blame the wrong thing.
        module.__path__ = []
        if above:
            setattr(by_name[above], last, module)
    return by_name
