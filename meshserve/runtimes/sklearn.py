"""scikit-learn estimators: skops files by their trusted types, pickle and joblib only where the spec trusts their code."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import devices, files, optional_import, options, tabular

T = TypeVar("T")

PLATFORM = "sklearn"

SKOPS = "schema.json"
"""The member that every skops file has."""

_PICKLED = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

_COMPRESSED = (
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x5d\x00\x00",
)

_OUTPUTS = ("predict", "predict_proba")

_DATATYPES = (
    "FP64",
    "FP32",
    "INT64",
    "INT32",
    "INT16",
    "INT8",
    "UINT64",
    "UINT32",
    "UINT16",
    "UINT8",
    "BOOL",
    "FP16",
    "BYTES",
)


def _looks_like_sklearn(file: Path) -> bool:
    return SKOPS in files.members(file) or files.head(file, 2) in _PICKLED


LAYOUT = files.Layout(
    ("model.skops", "model.joblib", "model.pkl"),
    (".skops", ".joblib", ".pkl", ".pickle"),
    _looks_like_sklearn,
)


class SklearnRuntime(model_runtime.Runtime):
    """Loads `.skops`, and with `trust: true` `.joblib` and `.pkl`."""

    name = "sklearn"
    needs_files = False

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        """Whether there is a skops, joblib or pickle file, by name or first bytes."""
        return LAYOUT.find(artifact.path) is not None

    def prepare(self, device: str) -> None:
        """Import scikit-learn and skops. Raises MissingExtra, or LoadFailed where the device is not there."""
        devices.require_known(device)
        optional_import.require("sklearn.pipeline", "scikit-learn", "sklearn")
        optional_import.require("skops.io", "skops", "sklearn")
        _quieten()

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:  # noqa: ARG002 estimators live on the host
        """Compressed forests unpack to many times their file."""
        file = LAYOUT.find(artifact.path)
        is_packed = (
            file is None or file.suffix == ".skops" or files.head(file, 8).startswith(_COMPRESSED)
        )
        return model.Footprint((10 if is_packed else 2) * artifact.size_bytes + (1 << 20))

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> tabular.TabularModel:
        """The estimator in the file (options: `trusted`, types that skops may make; `n_jobs`, 1 by default). Raises LoadFailed."""
        self.prepare(device)
        file = files.require(spec, artifact, LAYOUT)
        read = options.Options(spec)
        trusted, jobs = read.texts("trusted"), read.count("n_jobs", 1)
        read.check_known()
        is_skops = files.head(file, 4) == b"PK\x03\x04"
        estimator = _from_skops(file, spec, trusted) if is_skops else _from_pickle(file, spec)
        return tabular.verified(_loaded(file, lambda: _described(estimator, jobs)), spec)


def _quieten() -> None:
    """Rows come without column names by design: what they mean is in the model's documentation, not on the wire."""
    warnings.filterwarnings(
        "ignore", message="X does not have valid feature names", category=UserWarning
    )


def _from_skops(file: Path, spec: model.ModelSpec, trusted: tuple[str, ...]) -> Any:
    if SKOPS not in files.members(file):
        raise errors.LoadFailed(f"{file.name} is not a skops file, or a part of it is missing")
    skops = optional_import.require("skops.io", "skops", "sklearn")
    untrusted = _loaded(file, lambda: skops.get_untrusted_types(file=file))
    refused = [name for name in untrusted if name not in trusted]
    if refused and not spec.trust:
        raise errors.LoadFailed(
            f"{file.name} would make objects of types that are not trusted: {', '.join(refused)}; "
            "name them in options: {trusted: […]}, or set trust: true if you trust whoever made the file"
        )
    return _loaded(file, lambda: skops.load(file, trusted=untrusted))


def _from_pickle(file: Path, spec: model.ModelSpec) -> Any:
    if not spec.trust:
        raise errors.LoadFailed(
            f"{file.name} is code (pickle or joblib): set trust: true if you trust whoever made it, or save it with skops"
        )
    joblib = optional_import.require("joblib", "joblib", "sklearn")
    return _loaded(file, lambda: joblib.load(file))


def _loaded(file: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except errors.MeshError:
        raise
    except ImportError as error:
        raise errors.LoadFailed(
            f"{file.name} needs a module that is not installed here: {files.first_line(error)}"
        ) from error
    except MemoryError as error:
        raise errors.LoadFailed(
            f"{file.name} asks for more memory than there is; it is corrupt, or too big"
        ) from error
    except Exception as error:  # a corrupt file surfaces as whatever its bytes happen to mean
        raise errors.LoadFailed(
            f"{file.name} can't be read: {type(error).__name__}: {files.first_line(error)}"
        ) from error


def _limit_jobs(estimator: Any, jobs: int) -> None:
    """Many models share the cores: one request must not start a pool of threads."""
    get = getattr(estimator, "get_params", None)
    if get is None or isinstance(estimator, type):
        return
    names = [
        name
        for name, value in get().items()
        if name.rpartition("__")[2] == "n_jobs" and value != jobs
    ]
    estimator.set_params(**dict.fromkeys(names, jobs))


def _described(estimator: Any, jobs: int) -> tabular.Estimator:
    _limit_jobs(estimator, jobs)
    functions = {
        name: getattr(estimator, name)
        for name in _OUTPUTS
        if callable(getattr(estimator, name, None))
    }
    if not functions and callable(getattr(estimator, "transform", None)):
        functions = {"transform": estimator.transform}
    if not functions or isinstance(estimator, type):
        raise errors.LoadFailed(
            f"the file holds a {type(estimator).__name__}, which has neither predict nor transform"
        )
    columns = getattr(estimator, "n_features_in_", None)
    known = None if columns is None else int(columns)
    return tabular.Estimator(functions, known, _DATATYPES, PLATFORM)
