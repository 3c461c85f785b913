"""Nearest-centroid classifiers: a CSV file with a line `label,x1,x2,…` for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import files, options, prerequisites, signatures

LAYOUT = files.Layout(("model.centroids",), (".centroids",), sniff=lambda _: False)


class CentroidsModel(model_runtime.LoadedModel):
    """Labels and their centroids, of shape [classes, features]."""

    capabilities = model_runtime.Capabilities(is_reentrant=True)

    def __init__(self, labels: np.ndarray, centroids: np.ndarray, spec: model.ModelSpec) -> None:
        features = model.TensorSpec("features", "FP64", (-1, centroids.shape[1]))
        label = model.TensorSpec("label", "BYTES", (-1,))
        distance = model.TensorSpec("distance", "FP64", (-1,))
        inputs = signatures.agree(spec.inputs, (features,), "input")
        outputs = signatures.agree(spec.outputs, (label, distance), "output")
        self.signature = model.Signature(
            tuple(inputs), tuple(outputs), has_batch_dimension=True, can_join=True
        )
        self.probe = {next(iter(inputs)).name: centroids[:1]}
        self._own_names = {declared.name: own for declared, own in outputs.items()}
        self._labels, self._centroids = labels, centroids

    def predict(
        self, inputs: model_runtime.Tensors, outputs: Sequence[str]
    ) -> model_runtime.Tensors:
        """Return for each row of [rows, features] the nearest label and the distance to it."""
        (rows,) = inputs.values()
        distances = np.linalg.norm(rows[:, None, :] - self._centroids, axis=2)
        answers = {
            "label": self._labels[distances.argmin(axis=1)],
            "distance": distances.min(axis=1),
        }
        return {name: answers[self._own_names[name]] for name in outputs or self._own_names}

    def close(self) -> None:
        """Free the arrays."""
        del self._labels, self._centroids


class CentroidsRuntime(model_runtime.Runtime):
    """Loads `.centroids` files."""

    name = "centroids"
    needs_files = False  # the file is read once

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        """Return whether there is one file with the ending `.centroids`."""
        return LAYOUT.find(artifact.path) is not None

    def prepare(self, device: str) -> None:
        """Check the device; numpy is imported already."""
        prerequisites.check_device(device)

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:
        """Return 16 bytes for each of the file: a number takes 8, and at least 2 characters."""
        return model.Footprint(16 * artifact.size_bytes + (64 << 10))

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> CentroidsModel:
        """Read the file. Raises LoadFailed if its lines are not a label and as many numbers."""
        file: Path = files.find_model_file(spec, artifact, LAYOUT)
        options.Options(spec).check_known()
        try:
            lines = [line.split(",") for line in file.read_text().splitlines()]
            labels = np.array([line[0].encode() for line in lines], dtype=object)
            centroids = np.array([line[1:] for line in lines], dtype=np.float64)
        except ValueError as error:
            raise errors.LoadFailed(f"{file.name} is not a table of centroids: {error}") from error
        return CentroidsModel(labels, centroids, spec)
