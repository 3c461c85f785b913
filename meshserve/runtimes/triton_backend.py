"""A stand-in for Triton's `triton_python_backend_utils`, which exists inside Triton alone.

It has what a class needs that answers each request once. See the README of Triton's python_backend.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from meshserve.runtimes import datatypes, stand_in, triton_completion

NAME = "triton_python_backend_utils"
BYTES_TYPE = "TYPE_STRING"

_OWN_PARAMETERS = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers"}
    | {"binary_data_output"}
)
"""Parameters that Triton keeps to itself: `docs/protocol/extension_parameters.md` of its server."""

logger = logging.getLogger(__name__)


class TritonModelException(Exception):
    """An error that Triton itself raises in a model's code."""


class TritonError:
    """An error that a response carries to its caller."""

    # In Triton's order, `TRITONSERVER_Error_Code` in core/include/triton/core/tritonserver.h.
    (UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS) = range(7)
    CANCELLED = 7

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message = str(message)
        self._code = code

    def message(self) -> str:
        """Return the text for the caller."""
        return self._message

    def code(self) -> int:
        """Return the code that was given."""
        return self._code


class Tensor:
    """A named array."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self._name = name
        self._array = np.asarray(array)

    @staticmethod
    def from_dlpack(name: str, tensor: Any) -> Tensor:
        """Return a tensor of another library's memory, shape and datatype."""
        return Tensor(name, np.from_dlpack(tensor))

    def to_dlpack(self) -> Any:
        """Return the array as a DLPack capsule."""
        return self._array.__dlpack__()

    def name(self) -> str:
        """Return its name."""
        return self._name

    def as_numpy(self) -> np.ndarray:
        """Return its array, of any shape; the datatype BYTES is objects of type `bytes`."""
        return self._array

    def shape(self) -> tuple[int, ...]:
        """Return its sizes."""
        return self._array.shape

    def triton_dtype(self) -> str:
        """Return its type as a configuration writes it."""
        return numpy_to_triton_type(self._array.dtype)

    def is_cpu(self) -> bool:
        """Return True: tensors are in host memory."""
        return True


class BackendRequest:
    """One request to the model."""

    def __init__(
        self,
        inputs: Sequence[Tensor],
        requested_output_names: Sequence[str] = (),
        model_name: str = "",
        model_version: str = "",
        **said: Any,
    ) -> None:
        """`said` may have `request_id` and `parameters`, as they came; the rest is ignored."""
        self._inputs = list(inputs)
        self._outputs = list(requested_output_names)
        self._model = (model_name, model_version)
        self._id = str(said.get("request_id", ""))
        self._parameters = dict(said.get("parameters") or {})

    def inputs(self) -> list[Tensor]:
        """Return the inputs that came, in the shapes of the signature."""
        return self._inputs

    def requested_output_names(self) -> list[str]:
        """Return the names of the outputs to give."""
        return self._outputs

    def model_name(self) -> str:
        """Return the model's name."""
        return self._model[0]

    def model_version(self) -> int:
        """Return the model's version, 1 if that is no number."""
        version = self._model[1]
        return int(version) if version.isdecimal() else 1

    def request_id(self) -> str:
        """Return the id that the caller gave, or nothing."""
        return self._id

    def correlation_id(self) -> int:
        """Return 0: there are no sequences."""
        return 0

    def flags(self) -> int:
        """Return 0: there are no sequences."""
        return 0

    def timeout(self) -> int:
        """Return the caller's `timeout` in microseconds, 0 without one. The worker keeps none."""
        return self._number("timeout")

    def priority(self) -> int:
        """Return the caller's `priority`, 0 without one. Requests are run as they come."""
        return self._number("priority")

    def _number(self, name: str) -> int:
        value = self._parameters.get(name, 0)
        return value if isinstance(value, int) else 0

    def parameters(self) -> str:
        """Return the caller's parameters as JSON, without those that Triton keeps to itself."""
        kept = {
            name: value
            for name, value in self._parameters.items()
            if name not in _OWN_PARAMETERS and not name.startswith("triton_")
        }
        return json.dumps(kept)

    def preferred_memory(self) -> None:
        """Return nothing: outputs are in host memory."""

    def trace(self) -> None:
        """Return nothing: requests are not traced."""

    def set_release_flags(self, _flags: int) -> None:
        """Do nothing: a request ends with its answer."""

    def is_cancelled(self) -> bool:
        """Return False."""
        return False

    def get_response_sender(self) -> Any:
        """Raise TritonModelException: a request has one answer."""
        raise TritonModelException("decoupled models are not served: return the responses")

    def exec(self, *_: object, **__: object) -> Any:
        """Raise TritonModelException: models can't call each other."""
        raise TritonModelException("calls of other models (BLS) are not offered")

    async_exec = exec  # noqa: A003 Triton's name


class InferenceResponse:
    """The answer to one request: tensors, or an error."""

    def __init__(
        self,
        output_tensors: Sequence[Tensor] = (),
        error: TritonError | None = None,
        parameters: Mapping[str, Any] | None = None,
        **_ignored: object,
    ) -> None:
        self._outputs = list(output_tensors)
        self._error = error
        self._parameters = dict(parameters or {})

    def output_tensors(self) -> list[Tensor]:
        """Return its tensors, of any shapes."""
        return self._outputs

    def parameters(self) -> str:
        """Return the parameters that go back with the answer, as JSON."""
        return json.dumps(self._parameters)

    def has_error(self) -> bool:
        """Return whether it is an error."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """Return its error."""
        return self._error


class Logger:
    """Triton's log; it goes to the worker's."""

    @staticmethod
    def log(message: str, _level: object = None) -> None:
        """Log a message."""
        logger.info("%s", message)

    log_info = log
    log_verbose = log

    @staticmethod
    def log_warn(message: str) -> None:
        """Log a warning."""
        logger.warning("%s", message)

    @staticmethod
    def log_error(message: str) -> None:
        """Log an error."""
        logger.error("%s", message)


class Metric:
    """A number of a model's own, which is kept for the model and shown nowhere."""

    def __init__(self) -> None:
        self._value = 0.0

    def increment(self, value: float) -> None:
        """Add to the number."""
        self._value += value

    def set(self, value: float) -> None:
        """Set the number."""
        self._value = value

    def observe(self, value: float) -> None:
        """Add an observation to a histogram, which keeps nothing."""

    def value(self) -> float:
        """Return the number."""
        return self._value


class UnshownMetrics:
    """Metrics of one name: the mesh's own metrics are what `/metrics` shows."""

    COUNTER, GAUGE, HISTOGRAM = range(3)

    def __init__(self, name: str, description: str = "", kind: int = COUNTER) -> None:
        self.name, self.description, self.kind = name, description, kind
        logger.info("the metric %s of a model is not shown", name)

    def Metric(self, labels: object = None, **_options: object) -> Metric:  # noqa: N802, ARG002
        """Return a metric; Triton's name and parameters."""
        return Metric()


def _by_name(tensors: Sequence[Tensor], name: str) -> Tensor | None:
    return next((tensor for tensor in tensors if tensor.name() == name), None)


def get_input_tensor_by_name(request: BackendRequest, name: str) -> Tensor | None:
    """Return a request's input in the shape that came, None if it did not come."""
    return _by_name(request.inputs(), name)


def get_output_tensor_by_name(response: InferenceResponse, name: str) -> Tensor | None:
    """Return a response's output of any shape, None if it has none."""
    return _by_name(response.output_tensors(), name)


def _config_by_name(config: Mapping[str, Any], kind: str, name: str) -> Any:
    return next((entry for entry in config.get(kind, ()) if entry["name"] == name), None)


def get_input_config_by_name(model_config: Mapping[str, Any], name: str) -> Any:
    """Return an input's part of the configuration, None if it has none."""
    return _config_by_name(model_config, "input", name)


def get_output_config_by_name(model_config: Mapping[str, Any], name: str) -> Any:
    """Return an output's part of the configuration, None if it has none."""
    return _config_by_name(model_config, "output", name)


def using_decoupled_model_transaction_policy(_model_config: object) -> bool:
    """Return False: such models are refused."""
    return False


def triton_string_to_numpy(type_name: str) -> Any:
    """Return numpy's type of one that a configuration writes, like TYPE_FP32.

    Raises TritonModelException for TYPE_BF16, which numpy lacks.
    """
    if type_name == BYTES_TYPE:
        return np.object_
    if type_name == "TYPE_BF16":
        raise TritonModelException("numpy has no type for TYPE_BF16")
    return datatypes.NUMPY_TYPES[type_name.removeprefix("TYPE_")].type


triton_to_numpy_type = triton_string_to_numpy


def numpy_to_triton_type(dtype: Any) -> str:
    """Return a configuration's word for a type of numpy.

    Raises TritonModelException if there is none.
    """
    name = datatypes.datatype_of(np.dtype(dtype))
    if name is None:
        raise TritonModelException(f"there is no type for {dtype}")
    return BYTES_TYPE if name == "BYTES" else f"TYPE_{name}"


_SHOWN = (
    *(TritonModelException, TritonError, Tensor, InferenceResponse, Logger),
    *(get_input_tensor_by_name, get_output_tensor_by_name),
    *(get_input_config_by_name, get_output_config_by_name),
    *(using_decoupled_model_transaction_policy, triton_string_to_numpy, numpy_to_triton_type),
)


def _modules() -> dict[str, ModuleType]:
    module = ModuleType(NAME, __doc__)
    for shown in _SHOWN:
        setattr(module, shown.__name__, shown)
    # Triton's names, which other classes of this package have.
    vars(module)["InferenceRequest"] = BackendRequest
    vars(module)["MetricFamily"] = UnshownMetrics
    vars(module)["ModelConfig"] = triton_completion.CompletedConfig
    vars(module)["triton_to_numpy_type"] = triton_string_to_numpy
    return {NAME: module}


STAND_IN = stand_in.StandIn(NAME, _modules)


def config_json(config: Mapping[str, Any]) -> str:
    """Return a configuration in protobuf's JSON as Triton writes it for models: sizes are numbers.

    So are 0 and nothing where the configuration leaves a field out that models read.
    """
    document = {"max_batch_size": 0, "parameters": {}, **config}
    for kind in ("input", "output"):
        document[kind] = [_tensor_json(tensor) for tensor in config.get(kind, ())]
    return json.dumps(document)


def _tensor_json(tensor: Mapping[str, Any]) -> dict[str, Any]:
    written = {**tensor, "dims": [int(size) for size in tensor.get("dims", ())]}
    if "reshape" in tensor:
        written["reshape"] = {"shape": [int(size) for size in tensor["reshape"].get("shape", ())]}
    return written
