"""MLServer's own classes: `class MyModel(MLModel)`, run as trusted code.

A folder's `model-settings.json` names the class as `module.Class`. It runs with MLServer where that
is installed, else with a stand-in (`mlserver_stand_in.py`). As there, all of its code runs on one
event loop, requests interleave where it waits, and tensors are of any names and shapes.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import datatypes, stand_in, user_code

PLATFORM = "mlserver"
SETTINGS = "model-settings.json"
BAD_REQUEST, NOT_FOUND = range(400, 500), 404

_NESTING = (list, tuple, np.ndarray)


def _stand_in_modules() -> Mapping[str, ModuleType]:
    # By its name and not at the top: it needs pydantic, which workers without such models lack.
    return importlib.import_module("meshserve.runtimes.mlserver_stand_in").modules()  # type: ignore[no-any-return]


STAND_IN = stand_in.StandIn("mlserver", _stand_in_modules)


class MlserverModel(model_runtime.LoadedModel):
    """An object of a user's MLModel class."""

    def __init__(
        self,
        code: user_code.UserCode,
        user: Any,
        spec: model.ModelSpec,
        cleanup: contextlib.ExitStack,
    ) -> None:
        self.capabilities = model_runtime.Capabilities(
            # Its own loop keeps requests apart, as MLServer's does.
            is_reentrant=True,
            is_steady=False,
            needs_details=True,
        )
        self._code = code
        self._user = user
        self._cleanup = cleanup
        # By name, because they are MLServer's own where that is installed, else the stand-in's.
        self._types = importlib.import_module("mlserver.types")
        self.signature = model.Signature(
            _specs(user.inputs) or spec.inputs,
            _specs(user.outputs) or spec.outputs,
            platform=PLATFORM,
            is_open=True,
        )

    def predict(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> Mapping[str, np.ndarray]:
        """Call the user's `predict` with tensors of any shapes. Raises as `predict_request`."""
        return self.predict_request(inputs, outputs, model_runtime.RequestDetails(outputs=outputs))

    def predict_request(
        self,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],  # noqa: ARG002 the class sees them in its request
        details: model_runtime.RequestDetails,
    ) -> Mapping[str, np.ndarray]:
        """Call the user's `predict` with one request; tensors have any shapes.

        Raises ModelRaised with file and line for what it raises and for answers that are none, or
        InvalidRequest for an MLServerError that blames the caller, and for parameters that are not
        of MLServer's types.
        """
        try:
            request = self._request(inputs, details)
        except ValueError as error:
            # What pydantic says takes several lines: how many errors, where, and what each is.
            reason = " ".join(str(error).split())
            raise errors.InvalidRequest(f"MLServer takes no such parameters: {reason}") from None
        response = self._run(self._user.predict, request)
        try:
            own = {str(output.name): output for output in response.outputs}
            arrays = {name: to_array(output) for name, output in own.items()}
            said = {name: _said(output) for name, output in own.items()}
            answer = model_runtime.AnswerTensors(arrays, _said(response), said)
        except (AttributeError, TypeError, ValueError) as error:
            raise errors.ModelRaised(
                f"{self._code.file.name}: predict did not return an InferenceResponse: {error}"
            ) from None
        if len(answer) < len(response.outputs):
            raise errors.ModelRaised(
                f"{self._code.file.name}: two outputs of an answer have the same name"
            )
        return answer

    def _run(self, call: Any, *arguments: object) -> Any:
        code, user = self._code, self._user
        try:
            return code.run(errors.ModelRaised, _in_context, code, user, call, *arguments)
        except errors.ModelRaised as raised:
            status = getattr(raised.__cause__, "status_code", None)
            if status == NOT_FOUND or status not in BAD_REQUEST:
                raise
            # The class refuses what its caller sent, in its own words.
            raise errors.InvalidRequest(str(raised.__cause__)) from None

    def _request(
        self, inputs: Mapping[str, np.ndarray], details: model_runtime.RequestDetails
    ) -> Any:
        types = self._types
        return types.InferenceRequest(
            id=details.id or None,
            parameters=types.Parameters(**{**details.parameters, "headers": dict(details.headers)}),
            inputs=[self._input(name, array, details) for name, array in inputs.items()],
            outputs=[
                types.RequestOutput(
                    name=name, parameters=_parameters(types, details.output_parameters.get(name))
                )
                for name in details.outputs
            ]
            or None,
        )

    def _input(self, name: str, array: np.ndarray, details: model_runtime.RequestDetails) -> Any:
        values: Any = array.ravel().tolist()
        # As in MLServer, texts from JSON are `str`, those from binary tensors `bytes`.
        if details.is_json and array.dtype.hasobject:
            values = [_as_text(item) for item in values]
        sizes = details.nesting.get(name)
        if sizes is not None and int(np.prod(sizes)) == len(values):
            values = _nested(values, sizes)
        return self._types.RequestInput(
            name=name,
            shape=list(array.shape),
            datatype=datatypes.datatype_of(array.dtype),
            data=values,
            parameters=_parameters(self._types, details.input_parameters.get(name)),
        )

    def close(self) -> None:
        """Call the user's `unload`, and drop its modules."""
        # The modules and the loop must go even if `unload` raises.
        with self._cleanup:
            self._run(self._user.unload)
        del self._user


def _in_context(code: user_code.UserCode, user: Any, call: Any, *arguments: object) -> Any:
    """Call as MLServer does: its metrics and logs know the model, codecs are the model's first.

    It runs on the model's loop, where each call has a context of its own.
    """
    context = importlib.import_module("mlserver.context")
    context.model_name_var.set(user.name)
    context.model_version_var.set(user.version or "")
    _prefer_own_codecs(code)
    return call(*arguments)


def _prefer_own_codecs(code: user_code.UserCode) -> None:
    """Have the model's own codecs found first, by what runs in this context from here on."""
    owner = getattr(importlib.import_module("mlserver.codecs"), "OWNER", None)
    if owner is not None:
        owner.set(code.package)


def _imported(code: user_code.UserCode) -> ModuleType:
    """Return the module of the class. Raises LoadFailed."""
    # `decode_args` looks for codecs while the module is executed.
    _prefer_own_codecs(code)
    return code.module()


def _parameters(types: Any, said: Mapping[str, Any] | None) -> Any:
    return types.Parameters(**said) if said else None


def _said(payload: Any) -> dict[str, Any]:
    """Return the parameters of an answer or output that go back to the caller."""
    if payload.parameters is None:
        return {}
    said = payload.parameters.model_dump(exclude_none=True)
    return {
        name: value
        for name, value in said.items()
        if name != "headers" and not name.startswith("_")
    }


def _as_text(item: bytes | None) -> str | bytes | None:
    """Return a text; None stays None, and bytes that are no text stay bytes."""
    try:
        return None if item is None else item.decode()
    except UnicodeDecodeError:
        return item


def _nested(values: list[Any], sizes: Sequence[int]) -> Any:
    """Return values in lists of these sizes, as they came; of no sizes is the value alone."""
    if not sizes:
        return values[0]
    for size in reversed(sizes[1:]):
        # A step of 0 would be an error; there are no values to part then.
        values = [values[start : start + size] for start in range(0, len(values), size or 1)]
    return values


def _specs(tensors: Sequence[Any] | None) -> tuple[model.TensorSpec, ...]:
    return tuple(
        model.TensorSpec(
            str(tensor.name),
            str(getattr(tensor.datatype, "value", tensor.datatype)),
            tuple(int(size) for size in tensor.shape),
        )
        for tensor in tensors or ()
    )


def to_array(output: Any) -> np.ndarray:
    """Return an output's values in wire form. Its shape is [values] if they do not fill its own.

    MLServer sends what a class gives, whatever it says of the shape, and its clients read values:
    its documented example gives one text the shape [length of the text]. Raises ModelRaised for
    values that are not of the output's datatype.
    """
    datatype = str(getattr(output.datatype, "value", output.datatype))
    values = getattr(output.data, "root", output.data)
    if datatype == "BYTES":
        array = _texts(output.name, values)
    else:
        array = _numbers(output.name, values, datatype)
    shape = tuple(int(size) for size in output.shape)
    return array.reshape(shape if array.size == int(np.prod(shape)) else (array.size,))


def _texts(name: str, values: Any) -> np.ndarray:
    flat = list(_flat(values))
    if not all(isinstance(item, (str, bytes)) for item in flat):
        raise errors.ModelRaised(
            f"output {name!r} is declared BYTES, and has values of other types"
        )
    array = np.empty(len(flat), object)
    array[:] = [item.encode() if isinstance(item, str) else item for item in flat]
    return array


def _flat(values: Any) -> Any:
    for item in values if isinstance(values, _NESTING) else (values,):
        # No generator for each number: big answers are flattened at each request.
        if isinstance(item, _NESTING):
            yield from _flat(item)
        else:
            yield item


def _numbers(name: str, values: Any, datatype: str) -> np.ndarray:
    dtype = datatypes.NUMPY_TYPES[datatype]
    try:
        array = np.asarray([np.nan if item is None else item for item in _flat(values)])
        with np.errstate(over="ignore", invalid="ignore"):
            converted = array.astype(dtype)
    except (TypeError, ValueError) as error:
        raise errors.ModelRaised(f"output {name!r} is declared {datatype}: {error}") from None
    # MLServer sends a number as it is; one that its datatype can't hold must not become another.
    if dtype.kind != "f" and not np.array_equal(converted, array):
        raise errors.ModelRaised(
            f"output {name!r} is declared {datatype}, which can't hold its values"
        )
    return converted


def load(folder: Path, spec: model.ModelSpec, implementation: str) -> MlserverModel:
    """Return an object of the class, after its `load`. Raises LoadFailed."""
    module, _, name = implementation.rpartition(".")
    with contextlib.ExitStack() as cleanup:
        # First in and so last out: the model's codecs are dropped from the stand-in's module before
        # the module goes.
        cleanup.enter_context(STAND_IN.held())
        code = _code(folder, module)
        cleanup.callback(code.forget)
        cleanup.callback(_forget_codecs, code.package)
        # A copy, because this thread may load another model next, which has other codecs.
        class_ = getattr(contextvars.copy_context().run(_imported, code), name, None)
        if not isinstance(class_, type) or not callable(getattr(class_, "predict", None)):
            raise errors.LoadFailed(f"{code.file.name} has no class {name!r} with predict")
        user = code.run(errors.LoadFailed, class_, _settings(folder, spec, implementation))
        is_ready = code.run(errors.LoadFailed, _in_context, code, user, user.load)
        # MLServer's own workers take what is forgotten, None, for ready.
        if is_ready is False:
            raise errors.LoadFailed(f"{code.file.name}: load returned False: it is not ready")
        user.ready = True
        return MlserverModel(code, user, spec, cleanup.pop_all())
    raise AssertionError("the stack of clean-ups swallows nothing")


def _code(folder: Path, module: str) -> user_code.UserCode:
    """Return the code of a module in the folder, else of one that is installed."""
    path = folder.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / user_code.INIT):
        if file.is_file():
            return user_code.UserCode(file, package=folder, has_own_loop=True)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        # `find_spec` imports the packages above the module, and one may be missing.
        spec = None
    if spec is None or spec.origin is None:
        raise errors.LoadFailed(
            f"the module {module!r} of the class that model-settings.json names is neither in the "
            f"model's folder (as {module.replace('.', '/')}.py) nor installed where the mesh runs"
        )
    return user_code.UserCode(Path(spec.origin), installed=module, has_own_loop=True)


def _settings(folder: Path, spec: model.ModelSpec, implementation: str) -> Any:
    """Return the settings in the folder, or those that the spec makes. Raises LoadFailed."""
    kind = importlib.import_module("mlserver.settings").ModelSettings
    file = folder / SETTINGS
    own = {name: value for name, value in spec.options.items() if name != "file"}
    try:
        if file.is_file():
            settings = kind.parse_file(str(file))
        else:
            settings = kind(implementation=implementation, parameters={"uri": str(folder)})
        # Callers know the model by the mesh's name, whatever its file says.
        settings.name = spec.id.name
        if own:
            parameters = settings.parameters.model_dump() if settings.parameters else {}
            extra = {**(parameters.get("extra") or {}), **own}
            settings.parameters = (
                type(settings)
                .model_validate(
                    {"implementation": implementation, "parameters": {**parameters, "extra": extra}}
                )
                .parameters
            )
    except ValueError as error:
        raise errors.LoadFailed(f"{SETTINGS}: {error}") from None
    return settings


def _forget_codecs(package: str) -> None:
    forget = getattr(sys.modules.get("mlserver.codecs"), "forget", None)
    if forget is not None:
        forget(package)
