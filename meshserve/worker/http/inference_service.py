"""One inference from a decoded call to its answer, whatever protocol it came by."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from meshserve import errors
from meshserve.core.values import model
from meshserve.protocol import inference, model_description
from meshserve.worker.models import batcher, model_host


class InferenceService:
    """Answers calls with a host's models."""

    def __init__(self, of: model_host.ModelHost) -> None:
        self._host = of

    async def infer(self, call: inference.InferCall, expires_s: float) -> inference.InferReply:
        """Run the call's model. `expires_s` is on the event loop's clock. Raises every error that a prediction can end with."""
        id_ = self._host.served.resolve(call.model, call.version)
        resident = self._host.lease_now(id_) or await self._host.lease(id_, expires_s)
        try:
            return await self._run(call, id_, resident, expires_s)
        finally:
            self._host.release(resident)

    def infer_now(self, call: inference.InferCall) -> inference.InferReply | None:
        """The reply if the call's model is here and its run is quick, else nothing. Raises as `infer` does; only a reply is counted."""
        id_ = self._host.served.resolve(call.model, call.version)
        resident = self._host.at_hand(id_)
        if resident is None:
            return None
        began_s = time.perf_counter()
        inputs = inference.check(call, resident.signature)
        rows = _rows(inputs, resident.signature)
        if not resident.runner.is_quick(rows):
            return None
        counts = self._host.tallies[id_]
        outputs = resident.runner.run_now(inputs, call.outputs, rows, counts)
        self._host.used(resident)
        self._host.asked[id_] += 1
        counts.record_answer(rows, time.perf_counter() - began_s, time.time())
        return inference.InferReply(call.model, id_.version, call.id, outputs, resident.signature)

    async def _run(
        self,
        call: inference.InferCall,
        id_: model.ModelId,
        resident: model_host.ResidentModel,
        expires_s: float,
    ) -> inference.InferReply:
        counts = self._host.tallies[id_]
        self._host.asked[id_] += 1
        began_s = time.perf_counter()
        try:
            inputs = inference.check(call, resident.signature)
            rows = _rows(inputs, resident.signature)
            if resident.runner.is_quick(rows):
                outputs = resident.runner.run_now(inputs, call.outputs, rows, counts)
            else:
                outputs = await resident.runner.run(
                    batcher.RunRequest(inputs, call.outputs, rows, expires_s), counts
                )
        except errors.MeshError:
            counts.failure.record(time.perf_counter() - began_s)
            raise
        counts.record_answer(rows, time.perf_counter() - began_s, time.time())
        return inference.InferReply(call.model, id_.version, call.id, outputs, resident.signature)

    async def described(
        self, name: str, version: str, expires_s: float
    ) -> model_description.Described:
        """The model that a name means. It is loaded first if need be: only a loaded model's signature is known to be true."""
        id_ = self._host.served.resolve(name, version)
        resident = self._host.lease_now(id_) or await self._host.lease(id_, expires_s)
        self._host.release(resident)
        joins = resident.signature.can_join and resident.spec.batching
        return model_description.Described(
            id=model.ModelId(name, id_.version),
            versions=self._host.served.versions(id_.name),
            signature=resident.signature,
            platform=resident.platform,
            max_batch_size=resident.spec.max_batch_size if joins else 0,
        )

    def statistics(self, name: str, version: str) -> list[model_description.Statistics]:
        """The model's numbers on this worker: of one version, or of all. Raises ModelNotFound."""
        served = self._host.served
        id_ = served.resolve(name, version)
        ids = (
            [id_]
            if version
            else [model.ModelId(id_.name, each) for each in served.versions(id_.name)]
        )
        return [
            model_description.Statistics(each, self._host.tallies[each], self._host.footprint(each))
            for each in ids
        ]

    def is_ready(self, name: str, version: str) -> bool:
        """Whether a request for the model may be sent: it is registered, and the last try to load it did not fail. Raises ModelNotFound."""
        return not self._host.has_failed(self._host.served.resolve(name, version))


def _rows(inputs: Mapping[str, np.ndarray], signature: model.Signature) -> int:
    if not signature.has_batch_dimension:
        return 1
    for array in inputs.values():
        return int(array.shape[0])
    return 1
