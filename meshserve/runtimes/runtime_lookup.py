"""Which runtime loads an artifact: the one that the spec names, else the first that knows the artifact."""

from __future__ import annotations

import functools
from importlib import metadata

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import files, lightgbm, onnx, options, python, pytorch, sklearn, xgboost

GROUP = "meshserve.runtimes"
"""Entry points of this group add runtimes: each names a class without arguments, or a ready object, that is a `ports.Runtime`."""

RUNTIMES: tuple[model_runtime.Runtime, ...] = (
    python.PythonRuntime(),
    onnx.OnnxRuntime(),
    pytorch.TorchRuntime(),
    sklearn.SklearnRuntime(),
    xgboost.XgboostRuntime(),
    lightgbm.LightgbmRuntime(),
)
"""In the order in which they are asked. A `model.py` comes first: it may load what lies beside it."""

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
"""What others call the same: Triton's backends and platforms, KServe's formats, MLServer's implementations."""

UNDERSTOOD = (
    "model.onnx (onnx), model.pt or model.pt2 (torch), model.skops, model.joblib or model.pkl (sklearn), "
    "model.json, model.ubj or model.bst (xgboost), model.txt (lightgbm), model.py (python), or the one file with such an ending"
)


def names() -> tuple[str, ...]:
    """The runtimes there are: the built-in ones, then those of other packages."""
    return (*BUILT_IN, *_third_party())


def find(spec: model.ModelSpec, artifact: model_runtime.Artifact) -> model_runtime.Runtime:
    """The runtime for this artifact. Raises LoadFailed where the named one does not exist or nothing knows the artifact."""
    if spec.runtime:
        return named(spec.runtime)
    path = files.named_by(spec, artifact)
    candidate = model_runtime.Artifact(path, artifact.digest, artifact.size_bytes)
    for runtime in BUILT_IN.values():
        if runtime.accepts(candidate):
            return runtime
    for name in _third_party():
        if (runtime := _made(name)).accepts(candidate):
            return runtime
    raise errors.LoadFailed(
        f"no runtime knows this artifact ({files.listing(path)}); understood are {UNDERSTOOD}"
    )


def named(name: str) -> model_runtime.Runtime:
    """The runtime of that name or alias. Raises LoadFailed with the nearest name."""
    known = ALIASES.get(name, name)
    if known in BUILT_IN:
        return BUILT_IN[known]
    if known in _third_party():
        return _made(known)
    raise errors.LoadFailed(
        f"runtime {name!r} does not exist{options.nearest(name, [*names(), *ALIASES])}"
    )


@functools.cache
def _third_party() -> dict[str, metadata.EntryPoint]:
    points = metadata.entry_points(group=GROUP)
    return {point.name: point for point in points if point.name not in BUILT_IN}


@functools.cache
def _made(name: str) -> model_runtime.Runtime:
    point = _third_party()[name]
    try:
        loaded = point.load()
        runtime = loaded() if isinstance(loaded, type) else loaded
    except (
        Exception
    ) as error:  # another package's code may raise anything; its name must be in the message
        raise errors.LoadFailed(
            f"runtime {name!r} ({point.value}) can't be loaded: {files.first_line(error)}"
        ) from error
    if not isinstance(runtime, model_runtime.Runtime):
        raise errors.LoadFailed(f"runtime {name!r} ({point.value}) is not a model_runtime.Runtime")
    return runtime
