"""Models that take rows of columns: the common part of scikit-learn, XGBoost and LightGBM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import datatypes, files, probing, signatures, tabular_outputs

Arrays = Mapping[str, np.ndarray]

INPUT = "input"
"""The name of a matrix that has none in its file."""

WHOLE = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
"""Integer datatypes, which the libraries convert to the nearest floats."""


@dataclass(frozen=True, slots=True)
class ColumnForm:
    """The conversion of a request's columns to the library's own form, such as a data frame.

    `datatypes` are those that the columns probably have; any may come. `assemble` takes an array
    [rows] for each column, by name in the model's order.
    """

    datatypes: tuple[str, ...]
    assemble: Callable[[Arrays], object]


@dataclass(frozen=True, slots=True)
class Estimator:
    """A fitted model as its library gives it.

    `functions` compute its outputs, by name: each takes rows of features, of shape [rows, columns],
    or what `by_column` assembles. `columns` is None if the model doesn't know its number of
    features; `names` are their names, empty if it has none. `datatypes` are those that it takes as
    one matrix, the preferred one first. `encode` changes such a matrix into what the functions
    take. `refusals` are the exceptions that the library raises for values that the model can't
    take. `is_row_wise`: no row of a run influences another. `samples` are values for made-up rows,
    by the column's position. `expected` are outputs for a model that refuses made-up rows.
    `own_input` is what a model takes whose rows have no columns, such as texts.
    """

    functions: Mapping[str, tabular_outputs.Function]
    columns: int | None
    datatypes: tuple[str, ...]
    platform: str
    is_reentrant: bool = False
    refusals: tuple[type[Exception], ...] = (ValueError,)
    names: tuple[str, ...] = ()
    by_column: ColumnForm | None = None
    encode: Callable[[np.ndarray], np.ndarray] | None = None
    is_row_wise: bool = True
    samples: Mapping[int, Sequence[Any]] = field(default_factory=dict)
    expected: tuple[model.TensorSpec, ...] = ()
    own_input: model.TensorSpec | None = None


class TabularModel(model_runtime.LoadedModel):
    """An estimator and its signature: a matrix or columns in, outputs of its functions back."""

    def __init__(
        self,
        estimator: Estimator,
        signature: model.Signature,
        sources: Mapping[str, tabular_outputs.OutputSource],
    ) -> None:
        self.signature = signature
        self.capabilities = model_runtime.Capabilities(is_reentrant=estimator.is_reentrant)
        self._estimator: Estimator | None = estimator
        self._sources = dict(sources)
        self._specs = {spec.name: spec for spec in signature.outputs}

    def predict(self, inputs: Arrays, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Call the functions of the outputs that are asked for, each once.

        `inputs` are rows of shape [rows, columns], or an array [rows] for each column. Raises
        InvalidRequest for values that the library refuses.
        """
        estimator = self._estimator
        assert estimator is not None, "a closed model was asked to predict"
        names = outputs or tuple(self._sources)
        try:
            rows = _to_rows(estimator, self.signature.inputs, inputs)
            functions = dict.fromkeys(self._sources[name].function for name in names)
            returned = {function: estimator.functions[function](rows) for function in functions}
        except estimator.refusals as error:
            raise errors.InvalidRequest(files.summarize(error)) from None
        return {name: self._output(name, returned) for name in names}

    def _output(self, name: str, returned: Mapping[str, object]) -> np.ndarray:
        source = self._sources[name]
        array = tabular_outputs.extract(source, returned[source.function])
        return tabular_outputs.conform(array, self._specs[name])

    def close(self) -> None:
        """Drop the estimator."""
        self._estimator = None


def _to_rows(
    estimator: Estimator, inputs: Sequence[model.TensorSpec], arrays: Arrays
) -> np.ndarray | object:
    """Return what the estimator's functions take, from the arrays of a request."""
    if estimator.by_column is not None:
        return estimator.by_column.assemble({spec.name: arrays[spec.name] for spec in inputs})
    rows = arrays[inputs[0].name]
    if rows.dtype.hasobject:
        return datatypes.to_texts(rows)
    return rows if estimator.encode is None else estimator.encode(rows)


def verify(estimator: Estimator, spec: model.ModelSpec) -> TabularModel:
    """Return the estimator as a model, with a signature found by predicting made-up rows.

    A model that refuses made-up rows is no worse for it: it has the outputs that are declared, or
    those that its kind has. Raises LoadFailed if none are known, or if the tensors that `spec`
    declares contradict the model.
    """
    inputs = _find_inputs(estimator, spec)
    try:
        trial = _try_out(
            estimator,
            inputs,
            {own.name for own in spec.outputs},
            signatures.read_sample(spec, inputs),
        )
    except probing.ProbeFailed as failed:
        if spec.sample:
            raise signatures.refused_sample(failed.cause) from failed.cause
        return _unverified(estimator, inputs, spec, failed.cause)
    actual = tuple(trial.specs)
    signatures.check_specs(actual, "output")
    outputs = tabular_outputs.agree(spec.outputs, actual)
    joining = signatures.rows_joined(
        spec,
        (*inputs, *outputs),
        is_batchable=trial.has_rows,
        is_known=estimator.is_row_wise,
    )
    sources = {output.name: trial.sources[own] for output, own in outputs.items()}
    signature = _signature(estimator, inputs, tuple(outputs), joining)
    main = _main_outputs(tuple(sources.values()))
    if main > 1 and signature.table is not None:
        signature = replace(signature, table=replace(signature.table, main_outputs=main))
    loaded = TabularModel(estimator, signature, sources)
    loaded.probe = trial.inputs
    return loaded


def _main_outputs(sources: Sequence[tabular_outputs.OutputSource]) -> int:
    """Return how many outputs, the first ones, are parts of what one function returns."""
    first = sources[0].function
    others = (place for place, source in enumerate(sources) if source.function != first)
    return next(others, len(sources))


def _signature(
    estimator: Estimator,
    inputs: tuple[model.TensorSpec, ...],
    outputs: tuple[model.TensorSpec, ...],
    joining: tuple[bool, bool],
) -> model.Signature:
    """Return the signature; `joining` as from `signatures.rows_joined`."""
    is_by_column = estimator.by_column is not None
    columns = tuple(spec.name for spec in inputs) if is_by_column else estimator.names
    return model.Signature(
        inputs,
        outputs,
        has_batch_dimension=joining[0],
        can_join=joining[1],
        platform=estimator.platform,
        table=model.Table(columns, is_by_column),
    )


def _unverified(
    estimator: Estimator,
    inputs: tuple[model.TensorSpec, ...],
    spec: model.ModelSpec,
    cause: Exception,
) -> TabularModel:
    """Return a model that refused made-up rows, with the outputs that it must have."""
    # scikit-learn's own type is not known here, but a model that was not fitted never answers.
    if type(cause).__name__ == "NotFittedError" or not (spec.outputs or estimator.expected):
        raise errors.LoadFailed(
            f"the model does not predict from {_described(inputs)}: {files.summarize(cause)}"
        ) from cause
    signatures.check_specs(spec.outputs, "output")
    own = [model.TensorSpec(name, "", ()) for name in estimator.functions]
    declared = signatures.pair(spec.outputs or estimator.expected, own, "output")
    sources = {
        output.name: tabular_outputs.OutputSource(function.name, tabular_outputs.Form.ARRAY)
        for output, function in declared
    }
    outputs = tuple(output for output, _ in declared)
    # Estimators answer row by row; that no row influences another was not seen.
    joining = signatures.rows_joined(spec, (*inputs, *outputs), is_batchable=True, is_known=False)
    return TabularModel(estimator, _signature(estimator, inputs, outputs, joining), sources)


def _described(inputs: Sequence[model.TensorSpec]) -> str:
    if len(inputs) == 1:
        return f"{inputs[0].datatype} rows of shape {list(inputs[0].shape)}"
    return "the columns " + ", ".join(f"{spec.name} ({spec.datatype})" for spec in inputs)


@dataclass(frozen=True, slots=True)
class _Trial:
    """What an estimator did with made-up inputs: specs of its outputs and where they come from."""

    inputs: Arrays
    specs: tuple[model.TensorSpec, ...]
    sources: Mapping[str, tabular_outputs.OutputSource]
    has_rows: bool


def _try_out(
    estimator: Estimator,
    inputs: tuple[model.TensorSpec, ...],
    wanted: set[str],
    sample: Arrays | None,
) -> _Trial:
    """Call all functions with one row and with several, of the sample or made up.

    Functions that fail are left out, unless `wanted` or the only ones. Raises ProbeFailed.
    """
    is_free = any(-1 in spec.shape[1:] for spec in inputs)
    cause: Exception = AssertionError("no size was tried")
    for size in probing.FREE_SIZES if is_free and not sample else probing.FREE_SIZES[:1]:
        many = sample or _fill(probing.make_up(inputs, size), estimator)
        one = {name: array[:1] for name, array in many.items()}
        arrays, failure = _call_all(estimator, inputs, one, many)
        if arrays:
            kept = {name for name in wanted if name in estimator.functions}
            if failure is not None and not kept <= arrays.sources.keys():
                raise probing.ProbeFailed(failure)
            return arrays
        cause = failure or cause
    raise probing.ProbeFailed(cause)


def _call_all(
    estimator: Estimator, inputs: tuple[model.TensorSpec, ...], one: Arrays, many: Arrays
) -> tuple[_Trial | None, Exception | None]:
    specs: list[model.TensorSpec] = []
    sources: dict[str, tabular_outputs.OutputSource] = {}
    has_rows, failure = True, None
    for name, function in estimator.functions.items():
        try:
            first = function(_to_rows(estimator, inputs, one))
            rest = _attempt(function, estimator, inputs, many)
            parts = tabular_outputs.find_sources(name, first, rest)
            for output, source in parts.items():
                unique = output if output not in sources else f"{name}_{output}"
                alone = tabular_outputs.extract(source, first)
                joined = None if rest is None else tabular_outputs.extract(source, rest)
                specs.append(_common_spec(unique, alone, joined))
                sources[unique] = source
                has_rows &= joined is not None and _has_rows(alone, joined)
        except Exception as error:  # noqa: BLE001 a model may raise anything for made-up values
            failure = error
    return (_Trial(one, tuple(specs), sources, has_rows) if sources else None), failure


def _attempt(
    function: tabular_outputs.Function,
    estimator: Estimator,
    inputs: tuple[model.TensorSpec, ...],
    many: Arrays,
) -> object | None:
    rest = probing.attempt(lambda rows: function(_to_rows(estimator, inputs, rows)), many)
    # A model may take one row only.
    return None if isinstance(rest, Exception) else rest


def _common_spec(name: str, one: np.ndarray, many: np.ndarray | None) -> model.TensorSpec:
    if many is None or many.ndim != one.ndim:
        return datatypes.spec_for(name, one)
    sizes = zip(one.shape, many.shape, strict=True)
    return datatypes.spec_for(name, one, tuple(a if a == b else -1 for a, b in sizes))


def _has_rows(one: np.ndarray, many: np.ndarray) -> bool:
    return (
        one.shape[:1] == (1,)
        and many.shape[:1] == (probing.ROWS,)
        and one.shape[1:] == many.shape[1:]
    )


def _fill(made_up: Arrays, estimator: Estimator) -> Arrays:
    """Put the columns' own values, such as categories, in place of made-up ones."""
    if not estimator.samples:
        return made_up
    arrays = list(made_up.values())
    for place, values in estimator.samples.items():
        cells = [values[row % len(values)] for row in range(probing.ROWS)]
        is_matrix = estimator.by_column is None
        column = arrays[0][:, place] if is_matrix else arrays[place]
        column[:] = [
            cell.encode(errors="surrogateescape")
            if isinstance(cell, str) and column.dtype.hasobject
            else cell
            for cell in cells
        ]
    return made_up


def _find_inputs(estimator: Estimator, spec: model.ModelSpec) -> tuple[model.TensorSpec, ...]:
    """Return the inputs as declared, or else those of the estimator."""
    signatures.check_specs(spec.inputs, "input")
    if estimator.by_column is not None:
        own = tuple(
            model.TensorSpec(name, datatype, (-1,))
            for name, datatype in zip(estimator.names, estimator.by_column.datatypes, strict=True)
        )
        return _declared_columns(spec.inputs, own) if spec.inputs else own
    if not spec.inputs:
        if estimator.own_input is not None:
            return (estimator.own_input,)
        if estimator.columns is None:
            raise errors.LoadFailed(
                "the model does not say how many features it takes; "
                "declare inputs: [{name, datatype, shape}]"
            )
        return (model.TensorSpec(INPUT, estimator.datatypes[0], (-1, estimator.columns)),)
    if len(spec.inputs) > 1:
        raise errors.LoadFailed(
            f"the model takes one matrix of features, but {len(spec.inputs)} inputs are declared"
        )
    declared = spec.inputs[0]
    if declared.datatype not in estimator.datatypes:
        raise errors.LoadFailed(
            f"input {declared.name!r} is declared {declared.datatype}, "
            f"but the model takes {', '.join(estimator.datatypes)}"
        )
    if estimator.columns is not None:
        actual = model.TensorSpec(declared.name, declared.datatype, (-1, estimator.columns))
        signatures.check_true(declared, actual, "input")
    return (declared,)


def _declared_columns(
    declared: Sequence[model.TensorSpec], own: Sequence[model.TensorSpec]
) -> tuple[model.TensorSpec, ...]:
    """Return the columns in the model's order, with the datatypes that are declared."""
    signatures.check_names(declared, own, "input")
    signatures.check_complete(declared, [spec.name for spec in own], "input")
    by_name = {spec.name: spec for spec in declared}
    return tuple(model.TensorSpec(spec.name, by_name[spec.name].datatype, (-1,)) for spec in own)
