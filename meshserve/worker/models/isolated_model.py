"""Models that run in processes of their own, behind the contract of every loaded model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.logs import run_context
from meshserve.runtimes import prerequisites
from meshserve.worker.models import (
    call_fields,
    isolated_process,
    process_confinement,
    process_launcher,
)

Tensors = Mapping[str, np.ndarray]

PROCESS_BYTES = 24 << 20
"""What a process takes beside the model, until a load has measured it."""

GRACE_S = 1.0
"""A load's process is killed so long after its timeout, which the worker tells before."""


class IsolatedModel(model_runtime.LoadedModel):
    """A model in a process of its own."""

    __slots__ = ("_process", "capabilities", "probe", "signature")

    def __init__(
        self,
        process: isolated_process.IsolatedProcess,
        description: Mapping[str, Any],
        probe: Tensors,
    ) -> None:
        self._process = process
        self.signature = _signature(description["signature"])
        own = model_runtime.Capabilities(**description["capabilities"])
        # The event loop must not wait for another process. Its mapped files are its own.
        self.capabilities = dataclasses.replace(
            own, is_steady=False, can_detach=False, mapped_bytes=0
        )
        self.probe = probe if description["has_probe"] else None

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Run the model in its process; shapes and datatypes are the signature's.

        Raises ModelDied if the process dies.
        """
        call = {"call": "predict", "outputs": list(outputs), **_request()}
        return self._process.call(call, inputs).arrays

    def predict_request(
        self, inputs: Tensors, outputs: Sequence[str], details: model_runtime.RequestDetails
    ) -> Tensors:
        """Run the model in its process for one request, which it sees.

        Shapes and datatypes are the signature's. Raises as `predict`.
        """
        plain = dataclasses.replace(details, headers=dict(details.headers))
        call = {"call": "predict_request", "outputs": list(outputs), **_request()}
        call |= call_fields.pack(plain)
        frame = self._process.call(call, inputs)
        if "parameters" not in frame.fields:
            return frame.arrays
        return model_runtime.AnswerTensors(frame.arrays, *json.loads(frame.fields["parameters"]))

    def close(self) -> None:
        """Let the model close, and end its process."""
        self._process.end()

    def offload(self) -> None:
        """Move everything from the GPU to host memory."""
        self._process.call({"call": "offload"})

    def onload(self) -> None:
        """Move everything back to the GPU."""
        self._process.call({"call": "onload"})


class IsolatedRuntime(model_runtime.Runtime):
    """Loads models as another runtime does, each into a process of its own.

    `key` is that of the copies that it loads, one at a time. `process` is that of the last one.
    """

    def __init__(
        self,
        own: model_runtime.Runtime,
        launcher: process_launcher.ProcessLauncher,
        key: str,
        limits: process_confinement.ProcessLimits = process_confinement.NO_LIMITS,
        process_bytes: int = PROCESS_BYTES,
    ) -> None:
        """`process_bytes` is what a process is booked for beyond its model."""
        self.name = own.name
        self.needs_files = own.needs_files
        self.can_offload = own.can_offload
        self.process: isolated_process.IsolatedProcess | None = None
        self._own = own
        self._launcher = launcher
        self._key = key
        self._limits = limits
        self._process_bytes = process_bytes

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        """Return whether the runtime itself accepts the artifact."""
        return self._own.accepts(artifact)

    def prepare(self, device: str) -> None:
        """Check the device; only the process imports the library. Raises LoadFailed."""
        prerequisites.check_device(device)

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:
        """Return the runtime's own guess in bytes, and those of a process."""
        own = self._own.footprint_hint(artifact, device)
        return own.plus(model.Footprint(self._process_bytes))

    def find_row_mixing(
        self,
        loaded: model_runtime.LoadedModel,  # noqa: ARG002 the process knows its model
        artifact: model_runtime.Artifact,
        spec: model.ModelSpec,
    ) -> str | None:
        """Return why rows are not shown to be independent, as the process finds it."""
        assert self.process is not None, "the model was not loaded"
        call = {"call": "find_row_mixing", **call_fields.pack(artifact, spec)}
        reason = self.process.call(call).fields["reason"]
        return None if reason is None else str(reason)

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> IsolatedModel:
        """Load the model in a new process.

        Raises as the runtime itself does, or LoadDied if the process dies of it.
        """
        process = self.process = self._launcher.launch(
            self._key, run_context.RunLabels(*spec.id), self.name, self._limits
        )
        call = {"call": "load", **call_fields.pack(self.name, artifact, spec, device)}
        try:
            frame = process.call(call, timeout_s=spec.load_timeout_s + GRACE_S)
            if self._own.library_bytes <= self._launcher.library_bytes_max:
                self._launcher.proven_runtimes.add(self.name)
            process.mapped_bytes = frame.fields["capabilities"]["mapped_bytes"]
            return IsolatedModel(process, frame.fields, frame.arrays)
        except BaseException as error:
            process.discard("its load failed")
            if isinstance(error, errors.ModelDied):
                raise errors.LoadDied(error.message) from None
            if isinstance(error, errors.ModelRaised | errors.DeadlineExceeded):
                raise errors.LoadFailed(error.message) from None
            raise


def _request() -> dict[str, object]:
    """Return the field with the id of the request that runs, for the lines of the process."""
    return {"request": run_context.find().request_id}


def _signature(fields: Mapping[str, Any]) -> model.Signature:
    """Return the signature that the process has described."""
    table = fields["table"]
    return model.Signature(
        **{
            **fields,
            "inputs": _specs(fields["inputs"]),
            "outputs": _specs(fields["outputs"]),
            "optional": frozenset(fields["optional"]),
            "labels": tuple((name, tuple(words)) for name, words in fields["labels"]),
            "table": table and model.Table(**{**table, "columns": tuple(table["columns"])}),
        }
    )


def _specs(fields: Sequence[Mapping[str, Any]]) -> tuple[model.TensorSpec, ...]:
    return tuple(
        model.TensorSpec(spec["name"], spec["datatype"], tuple(spec["shape"])) for spec in fields
    )
