"""The fields of calls and answers between a worker and a model's process.

A worker's values go to the process pickled; what comes back is JSON, for its code may be hostile.
"""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime


def parameters(answer: Mapping[str, np.ndarray]) -> dict[str, object]:
    """Return the field with the parameters of an answer, whose tensors have any shape.

    It is a text of Python's own JSON, which keeps infinities and long numbers. Raises TypeError for
    values that JSON has no form of.
    """
    if not isinstance(answer, model_runtime.AnswerTensors):
        return {}
    values = [dict(answer.parameters), dict(answer.output_parameters)]
    return {"parameters": json.dumps(values, default=_plain)}


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a parameter is a {type(value).__name__}, not a text, number or boolean")


def pack(*values: object) -> dict[str, object]:
    """Return the field of a call that carries the worker's values to the process."""
    # As text, because headers are JSON; base 85 makes it longer by a quarter, base 64 by a third.
    return {"packed": base64.b85encode(pickle.dumps(values)).decode()}


def unpack(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the values that a worker has packed; only for its own bytes."""
    values: tuple[Any, ...] = pickle.loads(base64.b85decode(fields["packed"]))  # noqa: S301
    return values


def describe_error(error: BaseException) -> dict[str, object]:
    """Return the fields of an error: a MeshError's class, or the words for any other."""
    if isinstance(error, errors.MeshError):
        # A plug-in's own class is unknown to the worker, its base among ours is not.
        known = next(base for base in type(error).__mro__ if hasattr(errors, base.__name__))
        return {"error": [known.__name__, _sendable(error.message), error.retry_after_s]}
    return {"raised": _sendable(errors.words_of(error))}


def _sendable(text: str) -> str:
    """Return the text with "?" for surrogates, which file names may hold and a frame may not."""
    return text.encode("utf-8", "replace").decode()


def raise_error(fields: Mapping[str, Any]) -> None:
    """Raise the error in an answer, if it has one."""
    if "raised" in fields:
        raise errors.ModelRaised(str(fields["raised"]))
    if "error" in fields:
        name, message, retry_after_s = fields["error"]
        error_class = getattr(errors, str(name), None)
        # The process may be hostile, and name anything in the module.
        if not (isinstance(error_class, type) and issubclass(error_class, errors.MeshError)):
            error_class = errors.ModelRaised
        raise error_class(str(message), retry_after_s=retry_after_s)
