"""A copy in memory, ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from meshserve.core.values import model
from meshserve.protocol import tensors
from meshserve.worker.models import batcher, learned_tensors, loader


@dataclass(slots=True)
class ResidentModel:
    """A copy in memory, ready to run. `platform` is what model metadata shows.

    `needs_details`: the model sees the ids, parameters and headers of its requests.
    """

    key: str
    spec: model.ModelSpec
    loaded_copy: loader.LoadedCopy
    signature: model.Signature
    batcher: batcher.Batcher
    platform: str
    needs_details: bool = False

    def answered(
        self, inputs: Mapping[str, tensors.WireTensor], outputs: Mapping[str, np.ndarray]
    ) -> model.Signature:
        """Return the signature of an answer of any shapes to these inputs, after a run.

        The copy's own signature learns from them what nobody declared. Raises ModelRaised for an
        array whose dtype is no datatype's.
        """
        signature = self.signature
        if signature.has_open_inputs or signature.has_open_outputs:
            signature = self.signature = learned_tensors.learn(signature, inputs, outputs)
        return tensors.answered(signature, outputs)
