"""Folders of models as Triton has them, scanned and loaded as a worker does it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import runtime_lookup
from meshserve.storage import content, repository_scan
from meshserve.worker.models import described_model

PATTERN = model.ModelSpec(model.ModelId(""), "", trust=True)


def spec_of(repository: Path) -> model.ModelSpec:
    """Return the spec of the only model in a repository."""
    later_ns = time.time_ns() + 5_000_000_000
    scan = repository_scan.scan(repository, PATTERN, later_ns)
    assert not scan.problems
    (spec,) = scan.specs
    return spec


def artifact_of(spec: model.ModelSpec) -> model_runtime.Artifact:
    path = Path(unquote(urlsplit(spec.uri).path))
    return model_runtime.Artifact(path, content.digest(path), 1)


def load(repository: Path) -> model_runtime.LoadedModel:
    """Load the only model in a repository."""
    spec = spec_of(repository)
    artifact = artifact_of(spec)
    return described_model.load(runtime_lookup.find(spec, artifact), artifact, spec, "cpu")


def shapes(specs: Any) -> dict[str, list[int]]:
    return {spec.name: list(spec.shape) for spec in specs}
