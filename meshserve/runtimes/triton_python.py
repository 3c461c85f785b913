"""Triton's Python models: `model.py` with `class TritonPythonModel`, run as trusted code.

`initialize(args)`, `execute(requests)` and `finalize()` are called as Triton's python_backend does
it, but with one request at a time: its classes need not keep requests apart that are joined.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import tempfile
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import datatypes, triton_backend, triton_completion

CLASS = "TritonPythonModel"


class TritonPythonUser:
    """An object of a user's TritonPythonModel, with the methods of our own models' classes."""

    def __init__(self, class_: type, folder: Path, spec: model.ModelSpec) -> None:
        """Have the class complete its configuration, make the object and call `initialize`.

        Lets what they raise pass. `inputs` and `outputs` are then those of the configuration.
        """
        self._spec = spec
        self._config = json.loads(spec.description)["config"] if spec.description else {}
        self._cleanup = contextlib.ExitStack()
        try:
            self._cleanup.enter_context(triton_backend.STAND_IN.held())
            declared = {"name": spec.id.name, "backend": "python", **self._config}
            self._config = triton_completion.complete(class_, declared)
            self.inputs = triton_completion.tensors(spec.inputs, self._config, "input")
            self.outputs = triton_completion.tensors(spec.outputs, self._config, "output")
            self._user = class_()
            initialize = getattr(self._user, "initialize", None)
            if initialize is not None:
                initialize(self._arguments(folder))
        except BaseException:
            # A failed load must leave neither the stand-in nor the folder behind.
            self._cleanup.close()
            raise

    @property
    def optional(self) -> frozenset[str]:
        """The inputs that a request may leave out."""
        inputs = self._config.get("input", ())
        return frozenset(entry["name"] for entry in inputs if entry.get("optional"))

    def _arguments(self, folder: Path) -> dict[str, str]:
        id_ = self._spec.id
        # Models join both to a path, but an artifact in the cache has no folder of its version.
        repository = self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="meshserve-"))
        # It becomes the name of a folder.
        version = id_.version if id_.version.isalnum() else "1"
        (Path(repository) / version).symlink_to(folder.absolute(), target_is_directory=True)
        return {
            "model_config": triton_backend.config_json(self._config),
            "model_instance_kind": "CPU",
            "model_instance_name": f"{id_.name}_0",
            "model_instance_device_id": "0",
            "model_repository": repository,
            "model_version": version,
            "model_name": id_.name,
        }

    def predict(
        self, inputs: Mapping[str, np.ndarray], request: model_runtime.RequestDetails
    ) -> Mapping[str, np.ndarray] | Awaitable[Mapping[str, np.ndarray]]:
        """Return the outputs that `execute` gives for one request; shapes are the configuration's.

        Raises the error that it answers, or ModelRaised for anything but one response.
        """
        tensors = [triton_backend.Tensor(name, array) for name, array in inputs.items()]
        asked = triton_backend.BackendRequest(
            tensors,
            request.outputs or [output.name for output in self.outputs],
            self._spec.id.name,
            self._spec.id.version,
            request_id=request.id,
            parameters=request.parameters,
        )
        responses = self._user.execute([asked])
        if inspect.isawaitable(responses):
            return self._answer_later(responses)
        return self._answer(responses)

    async def _answer_later(self, responses: Awaitable[Any]) -> Mapping[str, np.ndarray]:
        return self._answer(await responses)

    def _answer(self, responses: Any) -> Mapping[str, np.ndarray]:
        if not isinstance(responses, Sequence) or len(responses) != 1:
            raise errors.ModelRaised("execute must return a list of one response for each request")
        (response,) = responses
        if response is None:
            raise errors.ModelRaised("execute returned None in place of a response")
        if response.has_error():
            raise _as_own(response.error())
        tensors = {
            tensor.name(): datatypes.to_wire(_with_texts(tensor.as_numpy()))
            for tensor in response.output_tensors()
        }
        return model_runtime.AnswerTensors(tensors, json.loads(response.parameters()))

    def close(self) -> None:
        """Call `finalize`, if there is one."""
        try:
            finalize = getattr(self._user, "finalize", None)
            if finalize is not None:
                finalize()
        finally:
            self._cleanup.close()


def _with_texts(array: np.ndarray) -> np.ndarray:
    """Return an array of any shape, its objects as bytes: Triton takes any object for a text."""
    if not array.dtype.hasobject:
        return array
    texts = np.empty(array.size, object)
    texts[:] = [
        element if isinstance(element, bytes) else str(element).encode() for element in array.flat
    ]
    return texts.reshape(array.shape)


def _as_own(error: triton_backend.TritonError) -> errors.MeshError:
    """Return the error as one of ours, with the same meaning."""
    kinds: dict[int, type[errors.MeshError]] = {
        triton_backend.TritonError.INVALID_ARG: errors.InvalidRequest,
        triton_backend.TritonError.NOT_FOUND: errors.ModelNotFound,
        triton_backend.TritonError.UNSUPPORTED: errors.Unsupported,
        triton_backend.TritonError.ALREADY_EXISTS: errors.AlreadyExists,
    }
    return kinds.get(error.code(), errors.ModelRaised)(error.message())
