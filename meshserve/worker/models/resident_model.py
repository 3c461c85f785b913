"""A copy in memory, ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from meshserve.core.values import model
from meshserve.protocol import tensors
from meshserve.worker.models import batcher, loader


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

    def answered(self, outputs: Mapping[str, np.ndarray]) -> model.Signature:
        """Return the signature of an answer of any shapes, after a run.

        A model whose outputs were not known has learned them from its first answer. Raises
        ModelRaised for an array whose dtype is no datatype's.
        """
        if not self.signature.outputs:
            self.signature = self.loaded_copy.loaded.signature
        return tensors.answered(self.signature, outputs)
