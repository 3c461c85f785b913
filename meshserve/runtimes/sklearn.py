"""scikit-learn estimators from skops, pickle and joblib files.

Pickle and joblib run code when they are read, so they need `trust: true`; skops checks types.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import files, options, prerequisites, tabular

T = TypeVar("T")

_READING = threading.Lock()
"""numpy reads the headers of arrays by `ast`, which fails in two threads at once before CPython
3.11.8 (https://github.com/python/cpython/issues/106905)."""

PLATFORM = "sklearn"

SKOPS = "schema.json"
"""A member that every skops file has."""

_PICKLED = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_COMPRESSED = (*_ZLIB, b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00")
"""The first bytes of joblib's compressions: zlib, gzip, bz2, xz and lzma."""

_OUTPUTS = ("predict", "predict_proba")

_INTEGERS = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
_DATATYPES = ("FP64", "FP32", *_INTEGERS, "BOOL", "FP16", "BYTES")


def _looks_like_sklearn(file: Path) -> bool:
    return SKOPS in files.zip_members(file) or files.read_head(file, 2) in _PICKLED


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
        """Return whether there is a skops, joblib or pickle file, by name or first bytes."""
        return LAYOUT.find(artifact.path) is not None

    def prepare(self, device: str) -> None:
        """Import scikit-learn and skops. Raises MissingExtra or LoadFailed."""
        prerequisites.check_device(device)
        prerequisites.import_library("sklearn.pipeline", "scikit-learn", "sklearn")
        prerequisites.import_library("skops.io", "skops", "sklearn")
        # Requests have no column names by design.
        warnings.filterwarnings(
            "ignore", message="X does not have valid feature names", category=UserWarning
        )

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:  # noqa: ARG002 estimators live on the host
        """Return a multiple of the file's size: compressed forests unpack to ten times theirs."""
        file = LAYOUT.find(artifact.path)
        is_packed = (
            file is None
            or file.suffix == ".skops"
            or files.read_head(file, 8).startswith(_COMPRESSED)
        )
        return model.Footprint((10 if is_packed else 2) * artifact.size_bytes + (1 << 20))

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> tabular.TabularModel:
        """Load the estimator in the file. Raises LoadFailed.

        Options: `trusted`, the types that skops may create, and `n_jobs`, 1 by default.
        """
        self.prepare(device)
        file = files.find_model_file(spec, artifact, LAYOUT)
        reader = options.Options(spec)
        trusted, jobs = reader.texts("trusted"), reader.count("n_jobs", 1)
        reader.check_known()
        is_skops = files.read_head(file, 4) == b"PK\x03\x04"
        fitted = _read_skops(file, spec, trusted) if is_skops else _read_pickle(file, spec)
        return tabular.verify(_guard(file, lambda: _estimator(fitted, jobs)), spec)


def _read_skops(file: Path, spec: model.ModelSpec, trusted: tuple[str, ...]) -> Any:
    if SKOPS not in files.zip_members(file):
        raise errors.LoadFailed(f"{file.name} is not a skops file, or a part of it is missing")
    skops = prerequisites.import_library("skops.io", "skops", "sklearn")
    untrusted = _guard(file, lambda: skops.get_untrusted_types(file=file))
    refused = [name for name in untrusted if name not in trusted]
    if refused and not spec.trust:
        raise errors.LoadFailed(
            f"{file.name} would make objects of types that are not trusted: {', '.join(refused)}; "
            "name them in options: {trusted: […]}, "
            "or set trust: true if you trust whoever made the file"
        )
    return _guard(file, lambda: skops.load(file, trusted=untrusted))


def _read_pickle(file: Path, spec: model.ModelSpec) -> Any:
    if not spec.trust:
        raise errors.LoadFailed(
            f"{file.name} is code (pickle or joblib): "
            "set trust: true if you trust whoever made it, or save it with skops"
        )
    joblib = prerequisites.import_library("joblib", "joblib", "sklearn")
    return _guard(file, lambda: joblib.load(file))


def _guard(file: Path, read: Callable[[], T]) -> T:
    """Return what `read` returns. Raises LoadFailed for whatever it raises."""
    try:
        with _READING:
            return read()
    except errors.MeshError:
        raise
    except ImportError as error:
        raise errors.LoadFailed(
            f"{file.name} needs a module that is not installed here: {files.summarize(error)}"
        ) from error
    except MemoryError as error:
        raise errors.LoadFailed(
            f"{file.name} asks for more memory than there is; it is corrupt, or too big"
        ) from error
    except Exception as error:  # the bytes of a corrupt file may mean anything
        raise errors.LoadFailed(
            f"{file.name} can't be read: {type(error).__name__}: {files.summarize(error)}"
        ) from error


def _limit_jobs(estimator: Any, jobs: int) -> None:
    """Set all `n_jobs`, because a request must not start threads on cores that models share."""
    get = getattr(estimator, "get_params", None)
    if get is None or isinstance(estimator, type):
        return
    names = [
        name
        for name, value in get().items()
        if name.rpartition("__")[2] == "n_jobs" and value != jobs
    ]
    estimator.set_params(**dict.fromkeys(names, jobs))


def _estimator(fitted: Any, jobs: int) -> tabular.Estimator:
    _limit_jobs(fitted, jobs)
    functions = {name: getattr(fitted, name) for name in _OUTPUTS if _has_method(fitted, name)}
    if not functions and _has_method(fitted, "transform"):
        functions = {"transform": fitted.transform}
    if not functions or isinstance(fitted, type):
        raise errors.LoadFailed(
            f"the file holds a {type(fitted).__name__}, which has neither predict nor transform"
        )
    columns = getattr(fitted, "n_features_in_", None)
    return tabular.Estimator(
        functions, None if columns is None else int(columns), _DATATYPES, PLATFORM
    )


def _has_method(fitted: Any, name: str) -> bool:
    return callable(getattr(fitted, name, None))
