"""Requests for runs of a model, and how the rows of several become one run and separate again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.logs import run_context
from meshserve.protocol import inference
from meshserve.runtimes import row_proof

Tensors = Mapping[str, np.ndarray]
Outcome = Tensors | errors.MeshError

REQUEST_ID = b"x-request-id"
SHOWN_IDS_MAX = 8
"""Of how many joined requests the lines of their run have the ids."""


@dataclass(slots=True)
class RunRequest:
    """A run of the model.

    `inputs` were checked against the signature; `rows` is the size of their first dimension if the
    model has a batch dimension, else 1. It is 0 for inputs whose first sizes are unequal or zero:
    such inputs can't be joined, and the model may refuse them. Empty `outputs` mean all.
    `expires_s` is the deadline on the event loop's clock. `details` are set for a model that sees
    them; its requests are run alone. `model_id` and `call` are for the lines that the run logs;
    a run of several requests has them as `joined`.
    """

    inputs: Tensors
    outputs: tuple[str, ...]
    rows: int
    expires_s: float
    model_id: model.ModelId | None = None
    call: inference.InferCall | None = None
    details: model_runtime.RequestDetails | None = None
    joined: Sequence[RunRequest] = ()

    def labels(self) -> run_context.RunLabels:
        """Return what the lines are marked with that the model's code prints and logs meanwhile."""
        if self.joined:
            labels = [request.labels() for request in self.joined[:SHOWN_IDS_MAX]]
            ids = [label.request_id for label in labels if label.request_id]
            more = ["…"] if len(self.joined) > SHOWN_IDS_MAX else []
            return labels[0]._replace(request_id=",".join(ids + more))
        if self.model_id is None:
            return run_context.NO_RUN
        return labels_of(self.model_id, self.call)


def labels_of(id_: model.ModelId, call: inference.InferCall | None) -> run_context.RunLabels:
    """Return what lines about a request are marked with.

    The request's id is that of the HTTP request or gRPC call, to which the gateway gives one if it
    has none; without a gateway it is the message's own, which may be empty.
    """
    if call is None:
        return run_context.RunLabels(*id_)
    for name, value in call.headers:
        if name == REQUEST_ID:
            return run_context.RunLabels(*id_, value.decode("latin-1"))
    return run_context.RunLabels(*id_, call.id)


def can_join(first: RunRequest, other: RunRequest) -> bool:
    """Return whether both want the same outputs of inputs that differ only in their rows.

    The columns of a data frame come in any datatype, and joining would make one of two.
    """
    if not first.rows or not other.rows or first.outputs != other.outputs:
        return False
    if first.details is not None:
        return False
    return first.inputs.keys() == other.inputs.keys() and all(
        array.shape[1:] == other.inputs[name].shape[1:] and array.dtype == other.inputs[name].dtype
        for name, array in first.inputs.items()
    )


def join(requests: Sequence[RunRequest]) -> RunRequest:
    """Return one request with the inputs of all, joined along the first dimension."""
    first = requests[0]
    inputs = {
        name: np.concatenate([request.inputs[name] for request in requests])
        for name in first.inputs
    }
    rows = sum(request.rows for request in requests)
    # Its deadline is never read: each job is answered by its own.
    return RunRequest(inputs, first.outputs, rows, 0.0, joined=requests)


class RowsLost(errors.ModelRaised):
    """An output of a joined run has more or fewer rows than its inputs."""


def find_difference(alone: Outcome, joined: Tensors) -> str | None:
    """Return in what a request's answer alone differs from that of a joined run, None if equal.

    Arrays have any shape and datatype.
    """
    if isinstance(alone, errors.MeshError):
        return f"alone it is refused ({alone.message})"
    return next(
        (
            f"output {name!r} {row_proof.describe_difference(array, joined[name])}"
            for name, array in alone.items()
            if not row_proof.is_close(array, joined[name])
        ),
        None,
    )


def split(outputs: Tensors, requests: Sequence[RunRequest]) -> Iterator[Tensors]:
    """Yield each request's rows of joined outputs. Raises RowsLost if an output has other rows."""
    rows = sum(request.rows for request in requests)
    if any(array.shape[:1] != (rows,) for array in outputs.values()):
        raise RowsLost("an output has not one row for each row of a joined run")
    start = 0
    for request in requests:
        end = start + request.rows
        yield {name: array[start:end] for name, array in outputs.items()}
        start = end
