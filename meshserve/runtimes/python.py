"""A user's own class: `model.py` with `class Model`, run only where the spec trusts its code.

    class Model:
        inputs = [("features", "FP64", [-1, 10])]       # optional: or declared in the spec
        outputs = [("score", "FP64", [-1])]             # optional: or found by a first prediction
        batchable = True                                # optional: rows may be joined with those of other requests

        def __init__(self, path, options): ...          # or without arguments; `path` is the model's folder
        def predict(self, inputs): ...                  # {name: ndarray} → {name: ndarray}, or one ndarray
        def close(self): ...                            # optional

Files beside it are imported relatively (`from . import features`): each model has a package of its own.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import itertools
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import datatypes, devices, files, options, probing, signatures

PLATFORM = "python"

T = TypeVar("T")

_OTHER_KINDS = (".onnx", ".ort", ".pt", ".pt2", ".pth", ".skops", ".joblib", ".pkl", ".ubj", ".bst")

_numbers = itertools.count()


def _is_code(file: Path) -> bool:
    return file.suffix == ".py"


LAYOUT = files.Layout(("model.py",), (".py",), _is_code)


class _Loader(importlib.machinery.SourceFileLoader):
    """Leaves no compiled file behind: nobody changes an artifact."""

    def set_data(self, path: str, data: object, *, _mode: int = 0o666) -> None:
        pass


class _Code:
    """One user's module under a name of its own, and his objects' errors told by file and line."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._folder = str(file.parent)
        self._name = f"meshserve_model_{next(_numbers)}"

    def module(self) -> ModuleType:
        """The module, executed. Raises LoadFailed."""
        loader = _Loader(self._name, str(self.file))
        spec = importlib.util.spec_from_file_location(
            self._name, self.file, loader=loader, submodule_search_locations=[self._folder]
        )
        if spec is None:
            raise errors.LoadFailed(f"{self.file.name} can't be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[self._name] = module
        self.run(errors.LoadFailed, loader.exec_module, module)
        return module

    def forget(self) -> None:
        """Let go of the module and of what it imported from its folder."""
        for name in [
            name for name in sys.modules if name == self._name or name.startswith(f"{self._name}.")
        ]:
            del sys.modules[name]

    def run(self, fault: type[errors.MeshError], call: Callable[..., T], *arguments: object) -> T:
        """Call the user's code; what it raises becomes `fault`, except what it raises of meshserve's own errors."""
        try:
            return call(*arguments)
        except errors.MeshError:
            raise
        except (
            Exception,
            SystemExit,
        ) as error:  # a user's code may raise anything, and none of it may end the worker
            raise fault(
                f"{self._place(error)}{type(error).__name__}: {files.first_line(error)}{_advice(error)}"
            ) from error

    def _place(self, error: BaseException) -> str:
        if isinstance(error, SyntaxError) and error.filename:
            return f"{Path(error.filename).name}:{error.lineno}: "
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename.startswith(self._folder)
        ]
        return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""


def _advice(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "; a file beside the model is imported with `from . import …`, a library must be installed"
    return ""


class PythonModel(model_runtime.LoadedModel):
    """A user's object and its signature."""

    # The user's code may wait for anything, and must not make the event loop wait with it.
    capabilities = model_runtime.Capabilities(is_steady=False)

    def __init__(
        self, code: _Code, user: Any, signature: model.Signature, names: Mapping[str, str]
    ) -> None:
        self.signature = signature
        self.probe: Mapping[str, np.ndarray] | None = None
        self._code = code
        self._user = user
        self._words = {spec.name: spec.datatype for spec in signature.outputs}
        self._names = names

    def predict(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Call the user's `predict`. Raises ModelRaised with file and line, or if what it gives breaks its own declaration."""
        given = self._given(inputs)
        return {name: self._checked(name, given) for name in outputs or self._words}

    def everything(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All that the user's `predict` gives, under its own names."""
        return {name: datatypes.as_wire(value) for name, value in self._given(inputs).items()}

    def close(self) -> None:
        """Call the user's `close`, if there is one, and forget his modules."""
        close = getattr(self._user, "close", None)
        try:
            if close is not None:
                self._code.run(errors.ModelRaised, close)
        finally:
            self._code.forget()
            del self._user

    def _given(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, object]:
        given = self._code.run(errors.ModelRaised, self._user.predict, dict(inputs))
        if isinstance(given, Mapping):
            return {str(name): value for name, value in given.items()}
        return {next(iter(self._names.values()), "output"): given}

    def _checked(self, name: str, given: Mapping[str, object]) -> np.ndarray:
        own = self._names[name]
        if own not in given:
            raise errors.ModelRaised(f"{self._code.file.name}: predict did not return {own!r}")
        array = datatypes.as_wire(given[own])
        word = self._words[name]
        if array.dtype != datatypes.NUMPY_TYPES[word]:
            raise errors.ModelRaised(
                f"{self._code.file.name}: predict returned {array.dtype} for {own!r}, which is declared {word}"
            )
        return array


class PythonRuntime(model_runtime.Runtime):
    """Loads `model.py`, or the only `.py` file of a folder without models of another kind."""

    name = "python"

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        """Whether there is such a file."""
        file = LAYOUT.find(artifact.path)
        if file is None or file.name == "model.py":
            return file is not None
        return (
            not any(other.suffix in _OTHER_KINDS for other in files.visible(file.parent))
            or not Path(artifact.path).is_dir()
        )

    def prepare(self, device: str) -> None:
        """Nothing to import: the user's code brings its own. Raises LoadFailed where the device is not there."""
        devices.require_known(device)

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:
        """What the code makes of its files is unknown: room for a library is added."""
        bytes_max = 2 * artifact.size_bytes + (32 << 20)
        return model.Footprint(bytes_max, bytes_max if device == "cuda" else 0)

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> PythonModel:
        """The user's class, made (options: `class`; all but `file` and `class` are the user's own). Raises LoadFailed."""
        self.prepare(device)
        file = files.require(spec, artifact, LAYOUT)
        if not spec.trust:
            raise errors.LoadFailed(
                f"{file.name} is code: set trust: true if you trust whoever wrote it"
            )
        code = _Code(file)
        try:
            user = _made(code, spec)
            return _verified(code, user, spec)
        except BaseException:
            code.forget()
            raise


def _made(code: _Code, spec: model.ModelSpec) -> Any:
    wanted = options.Options(spec).text("class", "Model")
    module = code.module()
    class_ = getattr(module, wanted, None)
    if not isinstance(class_, type):
        classes = [
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        ]
        raise errors.LoadFailed(
            f"{code.file.name} has no class {wanted!r}{options.nearest(wanted, classes)}"
        )
    if not callable(getattr(class_, "predict", None)):
        raise errors.LoadFailed(
            f"{code.file.name}: class {wanted} has no method predict(self, inputs)"
        )
    own = {name: value for name, value in spec.options.items() if name not in ("file", "class")}
    return code.run(errors.LoadFailed, class_, *_arguments(class_, code.file.parent, own))


def _arguments(class_: type, folder: Path, own: Mapping[str, object]) -> tuple[object, ...]:
    """`(path, options)` where the constructor takes two arguments, none where it takes none."""
    try:
        inspect.signature(class_).bind(folder, own)
    except TypeError:
        return ()
    return (folder, own)


def _verified(code: _Code, user: Any, spec: model.ModelSpec) -> PythonModel:
    """The object with a signature that a first prediction, where it can be made up, does not contradict."""
    inputs = spec.inputs or _declared(code, user, "inputs")
    outputs = spec.outputs or _declared(code, user, "outputs")
    if not inputs:
        raise errors.LoadFailed(
            f"{code.file.name} does not say what it takes: set inputs = [(name, datatype, shape), …] on the class, or in the spec"
        )
    signatures.check_words(inputs, "input")
    own_name = {"": outputs[0].name} if len(outputs) == 1 else {}
    runner = PythonModel(code, user, model.Signature(inputs, ()), own_name)
    try:
        probed = probing.explore(runner.everything, inputs)
    except probing.ProbeFailed as failed:
        return _unprobed(code, user, inputs, outputs, failed)
    given = signatures.agreed(outputs, _in_words(probed.outputs, outputs), "output")
    is_batchable = (
        bool(getattr(user, "batchable", False))
        and probed.is_batchable
        and signatures.are_batches((*inputs, *given))
    )
    signature = model.Signature(
        inputs,
        tuple(given),
        has_batch_dimension=is_batchable,
        can_join=is_batchable,
        platform=PLATFORM,
    )
    loaded = PythonModel(code, user, signature, {out.name: name for out, name in given.items()})
    loaded.probe = probed.inputs
    return loaded


def _in_words(
    found: Sequence[model.TensorSpec], declared: Sequence[model.TensorSpec]
) -> tuple[model.TensorSpec, ...]:
    """Outputs as their arrays look, with BF16 where that was declared of 16 bits."""
    bf16 = {spec.name for spec in declared if spec.datatype == "BF16"}
    return tuple(
        replace(spec, datatype="BF16") if spec.name in bf16 and spec.datatype == "UINT16" else spec
        for spec in found
    )


def _unprobed(
    code: _Code,
    user: Any,
    inputs: tuple[model.TensorSpec, ...],
    outputs: tuple[model.TensorSpec, ...],
    failed: probing.ProbeFailed,
) -> PythonModel:
    """A model that refuses made-up inputs may still be right, if it says itself what it gives."""
    if not outputs:
        raise errors.LoadFailed(
            f"a first prediction with made-up inputs failed, and no outputs are declared: {failed.cause}"
        ) from failed.cause
    signatures.check_words(outputs, "output")
    is_batchable = bool(getattr(user, "batchable", False)) and signatures.are_batches(
        (*inputs, *outputs)
    )
    signature = model.Signature(
        inputs, outputs, has_batch_dimension=is_batchable, can_join=is_batchable, platform=PLATFORM
    )
    return PythonModel(code, user, signature, {spec.name: spec.name for spec in outputs})


def _declared(code: _Code, user: Any, attribute: str) -> tuple[model.TensorSpec, ...]:
    """The class attribute `inputs` or `outputs` as specs. Raises LoadFailed if it is anything but a list of (name, datatype, shape)."""
    try:
        triples = [tuple(entry) for entry in getattr(user, attribute, None) or ()]
        return tuple(
            model.TensorSpec(str(name), str(word), tuple(int(size) for size in shape))
            for name, word, shape in triples
        )
    except (TypeError, ValueError) as error:
        raise errors.LoadFailed(
            f"{code.file.name}: {attribute} must be a list of (name, datatype, shape)"
        ) from error
