"""Finds the runtime of an artifact: the one that the spec names, or the first that accepts it."""

from __future__ import annotations

import functools
from importlib import metadata

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import files, lightgbm, onnx, options, python, pytorch, sklearn, xgboost

GROUP = "meshserve.runtimes"
"""The group of entry points that add runtimes.

Each names a class without parameters, or an object, that is a `model_runtime.Runtime`.
"""

# A user's class is asked first: it may load the files of other kinds that lie beside it.
RUNTIMES: tuple[model_runtime.Runtime, ...] = (
    python.PythonRuntime(),
    onnx.OnnxRuntime(),
    pytorch.TorchRuntime(),
    sklearn.SklearnRuntime(),
    xgboost.XgboostRuntime(),
    lightgbm.LightgbmRuntime(),
)

BUILT_IN: dict[str, model_runtime.Runtime] = {runtime.name: runtime for runtime in RUNTIMES}

ALIASES = {
    "onnxruntime": "onnx",
    "onnxruntime_onnx": "onnx",
    "pytorch": "torch",
    "pytorch_libtorch": "torch",
    "torchscript": "torch",
    "scikit-learn": "sklearn",
    "mlserver_sklearn.SKLearnModel": "sklearn",
    "mlserver_xgboost.XGBoostModel": "xgboost",
    "mlserver_lightgbm.LightGBMModel": "lightgbm",
}
"""Our runtimes by Triton's backends and platforms, KServe's formats, MLServer's implementations."""

UNDERSTOOD = (
    "model.onnx (onnx), model.pt or model.pt2 (torch), "
    "model.skops, model.joblib or model.pkl (sklearn), "
    "model.json, model.ubj or model.bst (xgboost), model.txt or model.bst (lightgbm), "
    "model.py (python), "
    "or the one file with such an ending"
)


def names() -> tuple[str, ...]:
    """Return the names of all runtimes: the built-in ones, then those of other packages."""
    return (*BUILT_IN, *_third_party())


def find(spec: model.ModelSpec, artifact: model_runtime.Artifact) -> model_runtime.Runtime:
    """Return the runtime for an artifact.

    Raises LoadFailed if the named runtime does not exist, or if no runtime accepts the artifact.
    """
    if spec.runtime:
        return by_name(spec.runtime)
    path = files.chosen_path(spec, artifact)
    candidate = model_runtime.Artifact(path, artifact.digest, artifact.size_bytes)
    for runtime in BUILT_IN.values():
        if runtime.accepts(candidate):
            return runtime
    # To ask them imports their packages, so they come after the built-in ones.
    for name in _third_party():
        if (runtime := _load_third_party(name)).accepts(candidate):
            return runtime
    raise errors.LoadFailed(
        f"no runtime knows this artifact ({files.list_names(path)}); understood are {UNDERSTOOD}"
    )


def by_name(name: str) -> model_runtime.Runtime:
    """Return the runtime of a name or alias. Raises LoadFailed with the nearest name."""
    name_here = ALIASES.get(name, name)
    if name_here in BUILT_IN:
        return BUILT_IN[name_here]
    if name_here in _third_party():
        return _load_third_party(name_here)
    # MLServer names a model's own class by its module: `models.MyModel`.
    if "." in name:
        return BUILT_IN[python.PythonRuntime.name]
    near = options.suggest(name, [*names(), *ALIASES])
    raise errors.LoadFailed(f"runtime {name!r} does not exist{near}")


@functools.cache
def _third_party() -> dict[str, metadata.EntryPoint]:
    points = metadata.entry_points(group=GROUP)
    # A package must not replace a built-in runtime unnoticed.
    return {point.name: point for point in points if point.name not in BUILT_IN}


@functools.cache
def _load_third_party(name: str) -> model_runtime.Runtime:
    point = _third_party()[name]
    try:
        target = point.load()
        runtime = target() if isinstance(target, type) else target
    except Exception as error:  # another package may raise anything when it is imported
        raise errors.LoadFailed(
            f"runtime {name!r} ({point.value}) can't be loaded: {files.summarize(error)}"
        ) from error
    if not isinstance(runtime, model_runtime.Runtime):
        raise errors.LoadFailed(f"runtime {name!r} ({point.value}) is not a model_runtime.Runtime")
    return runtime
