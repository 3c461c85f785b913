"""Models that take rows of columns: the common part of scikit-learn, XGBoost and LightGBM."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import (
    column_faults,
    datatypes,
    files,
    probing,
    refusals,
    signatures,
    tabular_outputs,
    tabular_trial,
)

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
    `own_input` is what a model takes whose rows have no columns, such as texts. `keeps_datatypes`:
    the functions compute otherwise with numbers of another datatype, so a matrix comes as it was
    sent, unless the functions take FP32 alone or the owner has declared a datatype.
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
    keeps_datatypes: bool = False


class TabularModel(model_runtime.LoadedModel):
    """An estimator and its signature: a matrix or columns in, outputs of its functions back.

    `sources` are empty if the estimator refused made-up rows: the first real answer shows them.
    """

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
        # What is not declared was seen once, and a later answer may have another datatype.
        is_open = signature.has_open_outputs
        self._declared = {} if is_open else {spec.name: spec for spec in signature.outputs}

    def predict(self, inputs: Arrays, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Call the functions of the outputs that are asked for, each once.

        `inputs` are rows of shape [rows, columns], or an array [rows] for each column. Raises
        InvalidRequest for values that the library refuses, or that are of another kind than those
        of the column. Numbers of a datatype that it refuses are tried in that of the signature.
        """
        # A name of its own keeps it alive: `close` may come while a run goes on.
        estimator = self._estimator
        assert estimator is not None, "a closed model was asked to predict"
        try:
            sources = self._sources or self._learn_sources(estimator, inputs)
            names = _names_of(outputs, sources)
            rows = _to_rows(estimator, self.signature.inputs, inputs)
            functions = dict.fromkeys(sources[name].function for name in names)
            returned = {function: estimator.functions[function](rows) for function in functions}
        except errors.MeshError:
            raise
        except Exception as error:
            own = self._in_own_datatype(inputs)
            if own is not None:
                return self.predict(own, outputs)
            raise self._explain(estimator, inputs, error) from error
        return {name: self._output(name, sources[name], returned) for name in names}

    def _learn_sources(
        self, estimator: Estimator, inputs: Arrays
    ) -> Mapping[str, tabular_outputs.OutputSource]:
        """Find the outputs by the first rows that the estimator takes. Raises what it raises."""
        one = {name: array[:1] for name, array in inputs.items()}
        trial, failure = tabular_trial.call_all(
            _calls(estimator, self.signature.inputs), one, inputs
        )
        if trial is None:
            assert failure is not None, "functions neither answered nor failed"
            raise failure
        self._sources = dict(trial.sources)
        return self._sources

    def _in_own_datatype(self, inputs: Arrays) -> Arrays | None:
        """Return the matrix in the signature's datatype, None if it is that or may not have it."""
        first, table = self.signature.inputs[0], self.signature.table
        rows = inputs[first.name]
        dtype = datatypes.NUMPY_TYPES[first.datatype]
        if table is None or not table.keeps_datatypes or table.is_by_column:
            return None
        if rows.dtype.hasobject or rows.dtype == dtype:
            return None
        return {first.name: rows.astype(dtype)}

    def _explain(self, estimator: Estimator, inputs: Arrays, error: Exception) -> errors.MeshError:
        """Return what the caller is told, who is at fault if the model has taken other rows."""
        words = files.summarize(error)
        faults = []
        if estimator.by_column is not None and self.probe is not None:
            calls = _calls(estimator, self.signature.inputs).values()
            faults = column_faults.find(
                inputs, self.probe, lambda columns: [call(columns) for call in calls]
            )
        if faults:
            return errors.InvalidRequest(f"{'; '.join(faults)}: {words}")
        if isinstance(error, estimator.refusals):
            return refusals.refusal(error, words)
        words = errors.words_of(error)
        return errors.ModelRaised(words) if self.probe is None else refusals.refusal(error, words)

    def _output(
        self, name: str, source: tabular_outputs.OutputSource, returned: Mapping[str, object]
    ) -> np.ndarray:
        array = tabular_outputs.extract(source, returned[source.function])
        spec = self._declared.get(name)
        return array if spec is None else tabular_outputs.conform(array, spec)

    def close(self) -> None:
        """Drop the estimator."""
        self._estimator = None


def _names_of(
    wanted: Sequence[str], sources: Mapping[str, tabular_outputs.OutputSource]
) -> Sequence[str]:
    """Return the names of the outputs that are asked for. Raises InvalidRequest for unknown ones.

    A function stands for its outputs: before the first answer no other name was known.
    """
    names: list[str] = []
    for name in wanted or tuple(sources):
        if name in sources:
            names.append(name)
            continue
        parts = [output for output, source in sources.items() if source.function == name]
        if not parts:
            signatures.check_requested(wanted, sources)
        names += parts
    return names


def _calls(
    estimator: Estimator, inputs: Sequence[model.TensorSpec]
) -> dict[str, tabular_trial.Call]:
    """Return the estimator's functions by name, each taking the arrays of a request."""

    def call(function: tabular_outputs.Function, arrays: Arrays) -> object:
        return function(_to_rows(estimator, inputs, arrays))

    return {
        name: functools.partial(call, function) for name, function in estimator.functions.items()
    }


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
    those that its first answer shows. Raises LoadFailed if no rows could help, or if the tensors
    that `spec` declares contradict the model.
    """
    inputs = _find_inputs(estimator, spec)
    try:
        trial = tabular_trial.try_out(
            _calls(estimator, inputs),
            {own.name for own in spec.outputs},
            _trial_rows(estimator, inputs, signatures.read_sample(spec, inputs)),
        )
    except probing.ProbeFailed as failed:
        if spec.sample:
            raise signatures.refused_sample(failed.cause) from failed.cause
        return _unverified(estimator, inputs, spec, failed.cause)
    if not spec.inputs and trial.inputs[inputs[0].name].dtype == np.float32:
        inputs = (replace(inputs[0], datatype="FP32"), *inputs[1:])
    return _verified(estimator, inputs, spec, trial)


def _verified(
    estimator: Estimator,
    inputs: tuple[model.TensorSpec, ...],
    spec: model.ModelSpec,
    trial: tabular_trial.Trial,
) -> TabularModel:
    """Return a model that has taken rows, with the signature that they show. Raises LoadFailed."""
    actual = tuple(trial.specs)
    if inputs[0].shape[1:] == (-1,):
        # The width of made-up rows may be that of the output, and says nothing of others.
        actual = tuple(replace(s, shape=(*s.shape[:1], *(-1 for _ in s.shape[1:]))) for s in actual)
    signatures.check_specs(actual, "output")
    outputs = tabular_outputs.agree(spec.outputs, actual)
    joining = signatures.rows_joined(
        spec,
        (*inputs, *outputs),
        is_batchable=trial.has_rows,
        is_known=estimator.is_row_wise,
    )
    sources = {output.name: trial.sources[own] for output, own in outputs.items()}
    signature = _signature(estimator, spec, inputs, tuple(outputs), joining)
    main = _main_outputs(tuple(sources.values()))
    if main > 1 and signature.table is not None:
        signature = replace(signature, table=replace(signature.table, main_outputs=main))
    loaded = TabularModel(estimator, signature, sources)
    loaded.probe = trial.inputs
    return loaded


def _trial_rows(
    estimator: Estimator, inputs: tuple[model.TensorSpec, ...], sample: Arrays | None
) -> Iterator[Arrays]:
    """Yield rows to try: the sample, or made-up ones of several widths if any is allowed.

    The last ones of a matrix are FP32: some estimators that were fitted on that refuse all else.
    """
    if sample:
        yield sample
        return
    is_free = any(-1 in spec.shape[1:] for spec in inputs)
    is_matrix = estimator.by_column is None
    for size in probing.FREE_SIZES if is_free else probing.FREE_SIZES[:1]:
        made_up = probing.make_up(inputs, size)
        yield tabular_trial.fill(made_up, estimator.samples, is_matrix=is_matrix)
    if is_matrix and estimator.keeps_datatypes and inputs[0].datatype == "FP64":
        yield {name: rows.astype(np.float32) for name, rows in made_up.items()}


def _main_outputs(sources: Sequence[tabular_outputs.OutputSource]) -> int:
    """Return how many outputs, the first ones, are parts of what one function returns."""
    first = sources[0].function
    others = (place for place, source in enumerate(sources) if source.function != first)
    return next(others, len(sources))


def _signature(
    estimator: Estimator,
    spec: model.ModelSpec,
    inputs: tuple[model.TensorSpec, ...],
    outputs: tuple[model.TensorSpec, ...],
    joining: tuple[bool, bool],
) -> model.Signature:
    """Return the signature; `joining` as from `signatures.rows_joined`."""
    is_by_column = estimator.by_column is not None
    columns = tuple(spec.name for spec in inputs) if is_by_column else estimator.names
    keeps_datatypes = estimator.keeps_datatypes and not spec.inputs and inputs[0].datatype == "FP64"
    return model.Signature(
        inputs,
        outputs,
        has_batch_dimension=joining[0],
        can_join=joining[1],
        platform=estimator.platform,
        table=model.Table(columns, is_by_column, keeps_datatypes=keeps_datatypes),
        has_open_outputs=not spec.outputs,
    )


def _unverified(
    estimator: Estimator,
    inputs: tuple[model.TensorSpec, ...],
    spec: model.ModelSpec,
    cause: Exception,
) -> TabularModel:
    """Return a model that refused made-up rows, with the outputs that it must have.

    Raises LoadFailed if it would refuse all others too.
    """
    # scikit-learn's own type is not known here, but a model that was not fitted never answers.
    is_refusal = isinstance(cause, (*estimator.refusals, errors.MeshError))
    # One whose columns nobody has told may have refused their number alone.
    is_width_unknown = estimator.columns is None and not spec.inputs
    may_answer = is_refusal or is_width_unknown or bool(spec.outputs or estimator.expected)
    if type(cause).__name__ == "NotFittedError" or not may_answer:
        raise errors.LoadFailed(
            f"the model does not predict from {_described(inputs)}: {files.summarize(cause)}"
        ) from cause
    signatures.check_specs(spec.outputs, "output")
    own = [model.TensorSpec(name, "", ()) for name in estimator.functions]
    sources = {
        output.name: tabular_outputs.OutputSource(function.name, tabular_outputs.Form.ARRAY)
        for output, function in signatures.pair(spec.outputs, own, "output")
    }
    outputs = spec.outputs or estimator.expected
    # Estimators answer row by row; that no row influences another was not seen.
    joining = signatures.rows_joined(spec, (*inputs, *outputs), is_batchable=True, is_known=False)
    return TabularModel(estimator, _signature(estimator, spec, inputs, outputs, joining), sources)


def _described(inputs: Sequence[model.TensorSpec]) -> str:
    if len(inputs) == 1:
        return f"{inputs[0].datatype} rows of shape {list(inputs[0].shape)}"
    return "the columns " + ", ".join(f"{spec.name} ({spec.datatype})" for spec in inputs)


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
        # One that does not say how many features it takes is the judge itself.
        columns = -1 if estimator.columns is None else estimator.columns
        return (model.TensorSpec(INPUT, estimator.datatypes[0], (-1, columns)),)
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
