"""The outputs in what a user's class returns: arrays by name, one array, a tuple, a data frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.runtimes import datatypes

OUTPUT = "output"


class NoOutput(errors.ModelRaised):
    """A class returned None, or nothing but None."""


def by_name(answer: Any) -> Mapping[str, object]:
    """Return what a class without declared outputs returned, by name.

    A None in a mapping or tuple is left out: the class has no such output this time. Columns of a
    data frame are outputs. Raises NoOutput, or ModelRaised for a frame with equal names.
    """
    if isinstance(answer, Mapping):
        named = {str(name): value for name, value in answer.items()}
    elif _is_frame(answer):
        named = {str(name): answer[name].to_numpy() for name in answer.columns}
        if len(named) < len(answer.columns):
            raise errors.ModelRaised("predict returned a data frame with two columns of one name")
    elif _are_several(answer):
        named = {f"{OUTPUT}_{place}": value for place, value in enumerate(answer)}
    else:
        named = {OUTPUT: answer}
    outputs = {name: value for name, value in named.items() if value is not None}
    if not outputs:
        raise NoOutput("predict gave None where a tensor belongs, or no output at all")
    return outputs


def _is_frame(answer: Any) -> bool:
    # Known by its attributes, so that pandas is not imported for a look.
    return hasattr(answer, "columns") and hasattr(answer, "to_numpy")


def _are_several(answer: Any) -> bool:
    """Return whether an answer is a tuple of tensors, as torch's modules return them.

    A tuple of plain numbers is one tensor.
    """
    return isinstance(answer, tuple) and any(hasattr(value, "shape") for value in answer)


def to_arrays(outputs: Mapping[str, object]) -> dict[str, np.ndarray]:
    """Return outputs of any shapes in wire form, as arrays that later runs don't change.

    Raises ModelRaised for values that no datatype covers.
    """
    arrays = {}
    for name, value in outputs.items():
        try:
            arrays[name] = datatypes.owned(datatypes.to_wire(value), value)
        except errors.ModelRaised as error:
            # The class is kept, because at load NoDatatype means that no input can help.
            raise type(error)(f"output {name!r}: {error.message}") from error.__cause__
    return arrays
