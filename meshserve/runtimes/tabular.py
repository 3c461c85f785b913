"""Models that take one matrix of rows: the common part of scikit-learn, XGBoost and LightGBM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import datatypes, files, probing, signatures

Function = Callable[[np.ndarray], object]


@dataclass(frozen=True, slots=True)
class Estimator:
    """A fitted model as its library gives it.

    `functions` are the outputs that it can compute, by name: each takes rows of features, of shape
    [rows, columns]. `columns` is None if the model doesn't know its number of features.
    `datatypes` are those that it takes, the preferred one first. `refusals` are the exceptions that
    the library raises for values that the model can't take.
    """

    functions: Mapping[str, Function]
    columns: int | None
    datatypes: tuple[str, ...]
    platform: str
    is_reentrant: bool = False
    refusals: tuple[type[Exception], ...] = (ValueError,)


class TabularModel(model_runtime.LoadedModel):
    """An estimator and its signature: one input, and an output for each of the functions."""

    def __init__(
        self, estimator: Estimator, signature: model.Signature, functions: Mapping[str, Function]
    ) -> None:
        self.signature = signature
        self.capabilities = model_runtime.Capabilities(is_reentrant=estimator.is_reentrant)
        self._functions = dict(functions)
        self._refusals = estimator.refusals
        self._input = signature.inputs[0].name
        self._takes_texts = signature.inputs[0].datatype == "BYTES"

    def predict(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Call the functions of the outputs that are asked for, with rows of shape [rows, columns].

        Raises InvalidRequest for values that the library refuses.
        """
        rows = inputs[self._input]
        if self._takes_texts:
            rows = datatypes.to_texts(rows)
        try:
            return {
                name: datatypes.to_wire(self._functions[name](rows))
                for name in outputs or self._functions
            }
        except self._refusals as error:
            raise errors.InvalidRequest(files.summarize(error)) from None

    def close(self) -> None:
        """Drop the estimator."""
        self._functions.clear()


def verify(estimator: Estimator, spec: model.ModelSpec) -> TabularModel:
    """Return the estimator as a model, with a signature found by predicting made-up rows.

    Raises LoadFailed if it does not predict, or contradicts the tensors that `spec` declares.
    """
    input_ = _find_input(estimator, spec)
    unverified = TabularModel(estimator, model.Signature((input_,), ()), estimator.functions)
    try:
        probed = probing.probe(lambda feed: unverified.predict(feed, ()), (input_,))
    except probing.ProbeFailed as failed:
        raise errors.LoadFailed(
            f"the model does not predict from {input_.datatype} rows of shape "
            f"{list(input_.shape)}: {files.summarize(failed.cause)}"
        ) from failed.cause
    signatures.check_specs(probed.outputs, "output")
    outputs = signatures.agree(spec.outputs, probed.outputs, "output")
    has_rows, can_join = signatures.rows_joined(
        spec, (input_, *outputs), is_batchable=probed.is_batchable, is_known=True
    )
    signature = model.Signature(
        (input_,),
        tuple(outputs),
        has_batch_dimension=has_rows,
        can_join=can_join,
        platform=estimator.platform,
    )
    functions = {output.name: estimator.functions[own] for output, own in outputs.items()}
    loaded = TabularModel(estimator, signature, functions)
    loaded.probe = probed.inputs
    return loaded


def _find_input(estimator: Estimator, spec: model.ModelSpec) -> model.TensorSpec:
    """Return the input as declared, or else `input` with the library's preferred datatype."""
    if not spec.inputs:
        if estimator.columns is None:
            raise errors.LoadFailed(
                "the model does not say how many features it takes; "
                "declare inputs: [{name, datatype, shape}]"
            )
        return model.TensorSpec("input", estimator.datatypes[0], (-1, estimator.columns))
    signatures.check_specs(spec.inputs, "input")
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
    return declared
