"""A user's own class: `model.py` with `class Model`, run only if the spec trusts its code.

    class Model:
        inputs = [("features", "FP64", [-1, 10])]   # optional: or declared in the spec, or any
        outputs = [("score", "FP64", [-1])]         # optional: or found by a first prediction
        optional_inputs = ["mask"]                  # optional: what a request may leave out
        batchable = True                            # optional: rows of requests may be joined

        def __init__(self, path, options): ...      # or without parameters; `path` is the folder
        def predict(self, inputs): ...              # {name: array} → {name: array}, or one array
        def close(self): ...                        # optional

With `predict(self, inputs, request)` it sees each request's id, parameters and headers. Triton's
`class TritonPythonModel` and MLServer's `MLModel` run too, see `triton_python.py` and
`mlserver_python.py`. Users read docs/python-models.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import (
    class_outputs,
    datatypes,
    files,
    mlserver_python,
    options,
    prerequisites,
    probing,
    signatures,
    triton_backend,
    triton_python,
    user_code,
)

PLATFORM = "python"

REQUEST = "request"
"""The parameter of a user's `predict` that gets what a request says besides its tensors."""

_OTHER_KINDS = (".onnx", ".ort", ".pt", ".pt2", ".pth", ".skops", ".joblib", ".pkl", ".ubj", ".bst")

LAYOUT = files.Layout(("model.py",), (".py",), lambda file: file.suffix == ".py")


class PythonModel(model_runtime.LoadedModel):
    """A user's object and its signature.

    `names` are the class's own names of declared outputs. Without any it gives what outputs it
    likes.
    """

    def __init__(
        self,
        code: user_code.UserCode,
        user: Any,
        signature: model.Signature,
        names: Mapping[str, str],
    ) -> None:
        self.signature = signature
        self._sees_request = sees_request(user)
        # A user's code may block, so it must not run on the event loop.
        self.capabilities = model_runtime.Capabilities(
            is_steady=False, needs_details=self._sees_request
        )
        self._code = code
        self._user = user
        self._datatypes = {name: _datatype(signature.outputs, name) for name in names}
        self._own_names = names

    def predict(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> Mapping[str, np.ndarray]:
        """Call the user's `predict`. Shapes and datatypes of inputs are the signature's.

        Raises ModelRaised with file and line for what it raises, and for declared outputs that are
        missing or have another datatype.
        """
        return self.predict_request(inputs, outputs, model_runtime.RequestDetails(outputs=outputs))

    def predict_request(
        self,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        details: model_runtime.RequestDetails,
    ) -> Mapping[str, np.ndarray]:
        """Call the user's `predict` for one request, which it may see.

        Shapes are the signature's. Raises as `predict`.
        """
        answer = self._call(inputs, details)
        arrays = self._declared(answer, outputs) if self._own_names else self._open(answer, outputs)
        if isinstance(answer, model_runtime.AnswerTensors):
            return model_runtime.AnswerTensors(arrays, answer.parameters, answer.output_parameters)
        return arrays

    def _declared(self, answer: Any, wanted: Sequence[str]) -> dict[str, np.ndarray]:
        signatures.check_requested(wanted, self._own_names)
        if not isinstance(answer, Mapping):
            answer = {next(iter(self._own_names.values())): answer}
        return {name: self._checked(name, answer) for name in wanted or self._own_names}

    def _open(self, answer: Any, wanted: Sequence[str]) -> dict[str, np.ndarray]:
        outputs = class_outputs.by_name(answer)
        signatures.check_requested(wanted, outputs)
        return class_outputs.to_arrays({name: outputs[name] for name in wanted or outputs})

    def predict_all(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return all that the user's `predict` returns, in wire form: of any names and shapes."""
        answer = self._call(inputs, model_runtime.RequestDetails())
        if self._own_names and not isinstance(answer, Mapping) and answer is not None:
            answer = {next(iter(self._own_names.values())): answer}
        return class_outputs.to_arrays(class_outputs.by_name(answer))

    def close(self) -> None:
        """Call the user's `close`, if there is one, and drop the modules."""
        close = getattr(self._user, "close", None)
        try:
            if close is not None:
                self._code.run(errors.ModelRaised, close)
        finally:
            self._code.forget()
            del self._user

    def _call(self, inputs: Mapping[str, np.ndarray], details: model_runtime.RequestDetails) -> Any:
        own = {name: datatypes.writable(array) for name, array in inputs.items()}
        arguments = (own, details) if self._sees_request else (own,)
        return self._code.run(errors.ModelRaised, self._user.predict, *arguments)

    def _checked(self, name: str, answer: Mapping[str, object]) -> np.ndarray:
        own = self._own_names[name]
        if own not in answer:
            raise errors.ModelRaised(f"{self._code.file.name}: predict did not return {own!r}")
        array = datatypes.owned(datatypes.to_wire(answer[own]), answer[own])
        datatype = self._datatypes[name]
        if array.dtype != datatypes.NUMPY_TYPES[datatype]:
            raise errors.ModelRaised(
                f"{self._code.file.name}: predict returned {array.dtype} for {own!r}, "
                f"which is declared {datatype}"
            )
        return array


def _datatype(outputs: Sequence[model.TensorSpec], name: str) -> str:
    return next(spec.datatype for spec in outputs if spec.name == name)


def sees_request(user: Any) -> bool:
    """Return whether the user's `predict` takes the request as its second argument."""
    try:
        names = list(inspect.signature(user.predict).parameters)
    except (TypeError, ValueError):
        return False
    return names[1:2] == [REQUEST]


class PythonRuntime(model_runtime.Runtime):
    """Loads `model.py`, or the only `.py` file of a folder without models of another kind."""

    name = "python"

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        """Return whether there is such a file."""
        file = LAYOUT.find(artifact.path)
        if file is None or file.name == "model.py":
            return file is not None
        return (
            # A `.py` beside a model of another kind may be the script that made it.
            not any(other.suffix in _OTHER_KINDS for other in files.visible_files(file.parent))
            or not Path(artifact.path).is_dir()
        )

    def copy_name(self, artifact: model_runtime.Artifact, spec: model.ModelSpec) -> str:
        """Return the model's name and class for classes of Triton and MLServer, which see it."""
        if "." in spec.runtime:
            return f"{spec.runtime} {spec.id}"
        file = LAYOUT.find(artifact.path)
        # Searched as text: nothing of a user's code runs before its trust is checked.
        sees_name = file is not None and triton_python.CLASS.encode() in file.read_bytes()
        return str(spec.id) if sees_name else ""

    def prepare(self, device: str) -> None:
        """Check the device; libraries are imported by the user's code. Raises LoadFailed."""
        prerequisites.check_device(device)

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:
        """Return twice the files' size and 32 MiB, because the code may import a library."""
        bytes_max = 2 * artifact.size_bytes + (32 << 20)
        return model.Footprint(bytes_max, bytes_max if device == "cuda" else 0)

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> model_runtime.LoadedModel:
        """Return an object of the user's class. Raises LoadFailed.

        Options: `class`, `Model` by default; all but `file` and `class` go to the constructor. A
        runtime with a dot is the module and name of a class of MLServer's.
        """
        self.prepare(device)
        if "." in spec.runtime:
            _check_trust(spec, f"the class {spec.runtime}")
            return mlserver_python.load(Path(artifact.path), spec, spec.runtime)
        file = files.find_model_file(spec, artifact, LAYOUT)
        _check_trust(spec, file.name)
        code = user_code.UserCode(file)
        try:
            with triton_backend.STAND_IN.held_for(file.parent):
                user = _instantiate(code, spec)
            if isinstance(user, triton_python.TritonPythonUser):
                return _declared_model(code, user)
            return _verify(code, user, spec)
        except BaseException:
            code.forget()
            raise


def _check_trust(spec: model.ModelSpec, code: str) -> None:
    if not spec.trust:
        raise errors.LoadFailed(f"{code} is code: set trust: true if you trust whoever wrote it")


def _instantiate(code: user_code.UserCode, spec: model.ModelSpec) -> Any:
    name = options.Options(spec).text("class", "Model")
    module = code.module()
    triton_class = getattr(module, triton_python.CLASS, None)
    if isinstance(triton_class, type) and "class" not in spec.options:
        if not callable(getattr(triton_class, "execute", None)):
            raise errors.LoadFailed(f"{code.file.name}: {triton_python.CLASS} has no execute")
        return code.run(
            errors.LoadFailed, triton_python.TritonPythonUser, triton_class, code.file.parent, spec
        )
    class_ = getattr(module, name, None)
    if not isinstance(class_, type):
        classes = [
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        ]
        raise errors.LoadFailed(
            f"{code.file.name} has no class {name!r}{options.suggest(name, classes)}"
        )
    if not callable(getattr(class_, "predict", None)):
        raise errors.LoadFailed(
            f"{code.file.name}: class {name} has no method predict(self, inputs)"
        )
    own = {key: value for key, value in spec.options.items() if key not in ("file", "class")}
    return code.run(errors.LoadFailed, class_, *_arguments(class_, code.file.parent, own))


def _arguments(class_: type, folder: Path, own: Mapping[str, object]) -> tuple[object, ...]:
    """Return `(path, options)` if the constructor takes two arguments, else none."""
    try:
        inspect.signature(class_).bind(folder, own)
    except TypeError:
        return ()
    return (folder, own)


def _verify(code: user_code.UserCode, user: Any, spec: model.ModelSpec) -> PythonModel:
    """Return the model with a signature that a first prediction does not contradict.

    A model that refuses made-up inputs, or does not say what it takes, may still be right.
    """
    inputs = spec.inputs or _declared(code, user, "inputs")
    outputs = spec.outputs or _declared(code, user, "outputs")
    signatures.check_specs(inputs, "input")
    own = {output.name: output.name for output in outputs}
    if not inputs:
        signatures.check_no_sample(spec)
        signatures.check_specs(outputs, "output")
        return PythonModel(code, user, _signature(user, spec, (), outputs), own)
    unverified = PythonModel(code, user, model.Signature(inputs, outputs), own)
    sample = signatures.read_sample(spec, inputs)
    try:
        probed = probing.probe(unverified.predict_all, inputs, sample)
    except probing.ProbeFailed as failed:
        if sample:
            raise signatures.refused_sample(failed.cause) from failed.cause
        _check_curable(failed.cause)
        signatures.check_specs(outputs, "output")
        return PythonModel(code, user, _signature(user, spec, inputs, outputs), own)
    own_names = signatures.agree(outputs, _with_bf16(probed.outputs, outputs), "output")
    signature = _signature(user, spec, inputs, own_names, is_batchable=probed.is_batchable)
    if outputs:
        own = {output.name: name for output, name in own_names.items()}
    else:
        signature = replace(signature, has_open_outputs=True)
    loaded = PythonModel(code, user, signature, own)
    loaded.probe = probed.inputs
    return loaded


_BUGS = (NameError, ImportError)
"""What no input could cure: a model with such a bug must not replace one that answers.

Nor could one cure a method that never returns anything, or what no tensor can hold.
"""


def _check_curable(refusal: Exception) -> None:
    """Raise LoadFailed if no other input could end in an answer."""
    kinds = (class_outputs.NoOutput, datatypes.NoDatatype)
    if isinstance(refusal, kinds) or isinstance(refusal.__cause__, _BUGS):
        raise errors.LoadFailed(str(refusal)) from refusal


def _declared_model(code: user_code.UserCode, user: triton_python.TritonPythonUser) -> PythonModel:
    """Return a model with the tensors that its configuration declares. Nothing is tried out."""
    inputs, outputs = user.inputs, user.outputs
    try:
        signatures.check_specs(inputs, "input")
        signatures.check_specs(outputs, "output")
    except errors.LoadFailed:
        code.run(errors.LoadFailed, user.close)
        raise
    signature = model.Signature(
        inputs,
        outputs,
        platform=PLATFORM,
        optional=user.optional,
        has_open_inputs=not inputs,
        has_open_outputs=not outputs,
    )
    return PythonModel(code, user, signature, {output.name: output.name for output in outputs})


def _signature(
    user: Any,
    spec: model.ModelSpec,
    inputs: Sequence[model.TensorSpec],
    outputs: Iterable[model.TensorSpec],
    *,
    is_batchable: bool = True,
) -> model.Signature:
    inputs, outputs = tuple(inputs), tuple(outputs)
    is_promised = bool(getattr(user, "batchable", False))
    has_rows, can_join = signatures.rows_joined(
        spec,
        (*inputs, *outputs),
        is_batchable=is_batchable and is_promised,
        is_known=is_promised,
    )
    optional = frozenset(map(str, getattr(user, "optional_inputs", ()))) if inputs else frozenset()
    signatures.check_known_names(optional, inputs)
    return model.Signature(
        inputs,
        outputs,
        has_batch_dimension=has_rows,
        # Joined requests would be one run with two ids.
        can_join=can_join and not sees_request(user),
        platform=PLATFORM,
        optional=optional,
        has_open_inputs=not inputs,
        has_open_outputs=not outputs,
    )


def _with_bf16(
    outputs: Sequence[model.TensorSpec], declared: Sequence[model.TensorSpec]
) -> tuple[model.TensorSpec, ...]:
    """Return the outputs, with BF16 instead of UINT16 where that is declared."""
    bf16 = {spec.name for spec in declared if spec.datatype == "BF16"}
    return tuple(
        replace(spec, datatype="BF16") if spec.name in bf16 and spec.datatype == "UINT16" else spec
        for spec in outputs
    )


def _declared(code: user_code.UserCode, user: Any, attribute: str) -> tuple[model.TensorSpec, ...]:
    """Return the class attribute `inputs` or `outputs` as specs.

    Raises LoadFailed if it is anything but a list of (name, datatype, shape).
    """
    try:
        triples = [tuple(entry) for entry in getattr(user, attribute, None) or ()]
        return tuple(
            model.TensorSpec(str(name), str(datatype), tuple(int(size) for size in shape))
            for name, datatype, shape in triples
        )
    except (TypeError, ValueError) as error:
        raise errors.LoadFailed(
            f"{code.file.name}: {attribute} must be a list of (name, datatype, shape)"
        ) from error
