"""scikit-learn estimators from skops, pickle and joblib files.

Pickle and joblib run code when they are read, so they need `trust: true`; skops checks types.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import (
    booster_categories,
    categories,
    datatypes,
    files,
    missing_classes,
    options,
    prerequisites,
    sklearn_columns,
    tabular,
)

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

_TEXTS = model.TensorSpec(tabular.INPUT, "BYTES", (-1,))
"""The input of vectorizers of texts: a text is a row."""

_DATATYPES = ("FP64", "FP32", *tabular.WHOLE, "BOOL", "FP16", "BYTES")


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
    library = "sklearn"
    # Measured: see docs/decisions/0162-libraries-need-room.md.
    library_bytes = 220 << 20
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
    # skops takes names alone: since 0.10 it refuses `trusted=True`.
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
    except AttributeError as error:
        raise errors.LoadFailed(missing_classes.explain(file, error)) from error
    except ImportError as error:
        raise errors.LoadFailed(
            f"{file.name} needs a module that is not installed here: {files.summarize(error)}; "
            "install it where the mesh runs (a module beside the file is not looked for)"
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
    # A file may hold a class, which is refused later by its name.
    if get is None or isinstance(estimator, type):
        return
    names = [
        name
        for name, value in get().items()
        if name.rpartition("__")[2] == "n_jobs" and value != jobs
    ]
    # CatBoost's fitted models refuse any call; their threads are an argument of `predict`.
    if names:
        estimator.set_params(**dict.fromkeys(names, jobs))


def _functions(fitted: Any, jobs: int) -> dict[str, Callable[..., Any]]:
    """Return the estimator's functions that answer, by name; none if it has none."""
    answering = {name: getattr(fitted, name) for name in _OUTPUTS if _has_method(fitted, name)}
    if type(fitted).__module__.partition(".")[0] == "catboost":
        return {
            name: functools.partial(function, thread_count=jobs)
            for name, function in answering.items()
        }
    if not answering and _has_method(fitted, "transform"):
        return {"transform": fitted.transform}
    return answering


def _estimator(fitted: Any, jobs: int) -> tabular.Estimator:
    _limit_jobs(fitted, jobs)
    functions = _functions(fitted, jobs)
    if not functions or isinstance(fitted, type):
        raise errors.LoadFailed(
            f"the file holds a {type(fitted).__name__}, which has neither predict nor transform"
        )
    columns = sklearn_columns.count(fitted)
    facts = sklearn_columns.describe(fitted, columns)
    names = sklearn_columns.feature_names(fitted)
    form = _column_form(facts, names, columns)
    if form is None and names and sklearn_columns.has_own_code(fitted):
        form = _frame_if_possible(len(names))
    encode: Callable[[np.ndarray], np.ndarray] | None = _writeable
    kept, is_first = _categories(fitted)
    if kept is not None and columns == len(kept.names):
        names = names or kept.names
        facts.samples.update(kept.samples())
        form, encode = kept.column_form(), kept.encode_matrix
        if not is_first:
            form, encode = _categorical_frame(kept, names), None
    return tabular.Estimator(
        functions,
        columns,
        _datatypes(facts),
        PLATFORM,
        names=names or (tuple(f"x{place}" for place in range(columns or 0)) if form else ()),
        by_column=form,
        encode=encode,
        is_row_wise=sklearn_columns.are_rows_independent(fitted),
        samples=facts.samples,
        expected=_expected_outputs(fitted, functions),
        own_input=_TEXTS if columns is None and _takes_rows_of_texts(fitted) else None,
        keeps_datatypes=kept is None,
    )


def _categories(fitted: Any) -> tuple[booster_categories.BoosterCategories | None, bool]:
    """Return the categories of the first booster that has some, and whether it sees the rows."""
    first = sklearn_columns.innermost(fitted)
    kept = booster_categories.of_estimator(first)
    if kept is not None:
        return kept, True
    for part in sklearn_columns.parts(fitted):
        kept = booster_categories.of_estimator(part)
        if kept is not None:
            return kept, False
    return None, False


def _categorical_frame(
    kept: booster_categories.BoosterCategories, names: tuple[str, ...]
) -> tabular.ColumnForm:
    """Return how columns become a frame with categories, for a booster inside of an estimator."""
    codes = {names[place]: column for place, column in kept.codes.items()}
    datatypes_ = tuple(
        "BYTES" if name in codes and codes[name].is_text else "FP64" for name in names
    )
    return tabular.ColumnForm(datatypes_, functools.partial(_frame, _pandas(), codes, {}))


def _writeable(rows: np.ndarray) -> np.ndarray:
    """Return rows of any shape that may be written to: steps with copy=False do that."""
    return rows if rows.flags.writeable else rows.copy()


def _datatypes(facts: sklearn_columns.ColumnFacts) -> tuple[str, ...]:
    """Return the datatypes of a matrix, texts first if its columns hold texts."""
    return ("BYTES", *_DATATYPES) if facts.texts else _DATATYPES


def _frame_if_possible(columns: int) -> tabular.ColumnForm | None:
    """Return how columns become the data frame that own code was fitted on, if pandas is there."""
    try:
        library = _pandas()
    except errors.LoadFailed:
        return None
    return tabular.ColumnForm(("FP64",) * columns, functools.partial(_frame, library, {}, {}))


def _column_form(
    facts: sklearn_columns.ColumnFacts, names: tuple[str, ...], columns: int | None
) -> tabular.ColumnForm | None:
    """Return how columns become a data frame, or an array of objects; None for one matrix."""
    texts = facts.texts
    if columns is None or not (facts.needs_names or texts):
        return None
    datatypes_ = tuple("BYTES" if place in texts else "FP64" for place in range(columns))
    gaps = {place: None if place in facts.nones else np.nan for place in texts}
    if names:
        by_name = {names[place]: gap for place, gap in gaps.items()}
        return tabular.ColumnForm(datatypes_, functools.partial(_frame, _pandas(), {}, by_name))
    if len(texts) == columns:
        return None
    return tabular.ColumnForm(datatypes_, functools.partial(_objects, gaps))


def _pandas() -> Any:
    try:
        return prerequisites.import_library("pandas", "pandas", "sklearn")
    except errors.MissingExtra:
        raise errors.LoadFailed(
            "the model takes columns by name, which needs pandas where the mesh runs: "
            "pip install pandas"
        ) from None


def _frame(
    library: Any,
    codes: Mapping[str, categories.CategoryCodes],
    gaps: Mapping[str, float | None],
    columns: Mapping[str, np.ndarray],
) -> Any:
    """Return a pandas data frame of columns [rows], with categories in those of `codes`.

    `gaps` has what stands for a missing text in each column of texts.
    """
    # As objects: pandas would choose another datatype, and another gap, by the texts of all rows.
    frame = library.DataFrame(
        {
            name: library.Series(_texts(cells, gaps.get(name, np.nan)), dtype=object)
            if cells.dtype.hasobject or (name in gaps and _is_empty(cells))
            else cells
            for name, cells in columns.items()
        }
    )
    for name, column in codes.items():
        # pandas would make gaps of unknown values without a word.
        column.refuse_unlisted(frame[name].tolist())
        frame[name] = library.Categorical(frame[name], categories=list(column.values))
    return frame


def _objects(gaps: Mapping[int, float | None], columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return columns [rows] as one array of objects, for estimators fitted on such an array."""
    cells = [_texts(part, gaps.get(place, np.nan)) for place, part in enumerate(columns.values())]
    return np.stack(cells, axis=1)


def _is_empty(cells: np.ndarray) -> bool:
    """Return whether a column has nothing but gaps: without a text they come as numbers."""
    return cells.dtype.kind == "f" and bool(np.isnan(cells).all())


def _texts(cells: np.ndarray, gap: float | None) -> np.ndarray:
    """Return a column as objects, with texts decoded and `gap` for each missing value."""
    if not cells.dtype.hasobject:
        objects = cells.astype(np.object_)
        if _is_empty(cells):
            objects[:] = gap
        return objects
    is_gap = np.array([cell is None for cell in cells.tolist()], dtype=bool)
    texts = datatypes.to_texts(cells)
    # `to_texts` has written gaps as the text "None".
    texts[is_gap] = gap
    return texts


def _expected_outputs(
    fitted: Any, functions: Mapping[str, Callable[..., object]]
) -> tuple[model.TensorSpec, ...]:
    """Return the outputs that an estimator of this kind has, where made-up rows show none."""
    classes = getattr(fitted, "classes_", None)
    label, count = "FP64", -1
    if isinstance(classes, np.ndarray):
        label, count = datatypes.datatype_of(classes.dtype) or "BYTES", len(classes)
    shapes = {"predict": (-1,), "predict_proba": (-1, count), "transform": (-1, -1)}
    return tuple(
        model.TensorSpec(name, label if name == "predict" else "FP64", shapes[name])
        for name in functions
    )


def _takes_rows_of_texts(fitted: Any) -> bool:
    """Return whether a row is one text: a document, or a label to be encoded."""
    if type(fitted).__name__ in ("LabelEncoder", "LabelBinarizer"):
        return np.asarray(fitted.classes_).dtype.kind in "OU"
    return sklearn_columns.takes_texts(fitted)


def _has_method(fitted: Any, name: str) -> bool:
    return callable(getattr(fitted, name, None))
