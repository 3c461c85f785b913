"""Models that take one matrix of rows: what scikit-learn, XGBoost and LightGBM have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import datatypes, files, probing, signatures

Predict = Callable[[np.ndarray], object]


@dataclass(frozen=True, slots=True)
class Estimator:
    """A fitted model as its library gives it.

    `functions` are what can be asked of it, by name: each takes rows of features. `columns` is None where the model doesn't know its own
    number of features. `datatypes` are those that it takes, the one it prefers first.
    """

    functions: Mapping[str, Predict]
    columns: int | None
    datatypes: tuple[str, ...]
    platform: str
    is_reentrant: bool = False
    faults: tuple[type[Exception], ...] = (ValueError,)
    """What the library raises for values that it can't take."""


class TabularModel(model_runtime.LoadedModel):
    """An estimator and its signature: one input, and an output for each function that can be asked for."""

    def __init__(
        self, estimator: Estimator, signature: model.Signature, functions: Mapping[str, Predict]
    ) -> None:
        self.signature = signature
        self.capabilities = model_runtime.Capabilities(is_reentrant=estimator.is_reentrant)
        self.probe: Mapping[str, np.ndarray] | None = None
        self._functions = dict(functions)
        self._faults = estimator.faults
        self._input = signature.inputs[0].name
        self._takes_texts = signature.inputs[0].datatype == "BYTES"

    def predict(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Call the functions asked for, and only those. Raises InvalidRequest for values that the library refuses."""
        rows = inputs[self._input]
        if self._takes_texts:
            rows = datatypes.as_texts(rows)
        try:
            return {
                name: datatypes.as_wire(self._functions[name](rows))
                for name in outputs or self._functions
            }
        except self._faults as error:
            raise errors.InvalidRequest(files.first_line(error)) from None

    def close(self) -> None:
        """Let the estimator go."""
        self._functions.clear()


def verified(estimator: Estimator, spec: model.ModelSpec) -> TabularModel:
    """The estimator with a signature found by predicting rows, which agrees with what was declared. Raises LoadFailed."""
    taken = _input(estimator, spec)
    runner = TabularModel(estimator, model.Signature((taken,), ()), estimator.functions)
    try:
        probed = probing.explore(lambda feed: runner.predict(feed, ()), (taken,))
    except probing.ProbeFailed as failed:
        shape = list(taken.shape)
        reason = files.first_line(failed.cause)
        raise errors.LoadFailed(
            f"the model does not predict from {taken.datatype} rows of shape {shape}: {reason}"
        ) from failed.cause
    signatures.check_words(probed.outputs, "output")
    given = signatures.agreed(spec.outputs, probed.outputs, "output")
    is_batchable = probed.is_batchable and signatures.are_batches((taken, *given))
    signature = model.Signature(
        (taken,),
        tuple(given),
        has_batch_dimension=is_batchable,
        can_join=is_batchable,
        platform=estimator.platform,
    )
    loaded = TabularModel(
        estimator, signature, {out.name: estimator.functions[name] for out, name in given.items()}
    )
    loaded.probe = probed.inputs
    return loaded


def _input(estimator: Estimator, spec: model.ModelSpec) -> model.TensorSpec:
    """The one input: as declared where that is possible, else `input` in the library's favourite datatype."""
    if not spec.inputs:
        if estimator.columns is None:
            raise errors.LoadFailed(
                "the model does not say how many features it takes; declare inputs: [{name, datatype, shape}]"
            )
        return model.TensorSpec("input", estimator.datatypes[0], (-1, estimator.columns))
    signatures.check_words(spec.inputs, "input")
    if len(spec.inputs) > 1:
        raise errors.LoadFailed(
            f"the model takes one matrix of features, but {len(spec.inputs)} inputs are declared"
        )
    declared = spec.inputs[0]
    if declared.datatype not in estimator.datatypes:
        raise errors.LoadFailed(
            f"input {declared.name!r} is declared {declared.datatype}, but the model takes {', '.join(estimator.datatypes)}"
        )
    if estimator.columns is not None:
        found = model.TensorSpec(declared.name, declared.datatype, (-1, estimator.columns))
        signatures.check_true(declared, found, "input")
    return declared
