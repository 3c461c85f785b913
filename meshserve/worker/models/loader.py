"""What a copy is made of, and its making: the part of a load that blocks."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import runtime_lookup
from meshserve.worker.models import process_memory

PROBES = 3
"""Runs of made-up inputs after a load; the quickest tells how long the model takes."""

SLOW_S = 0.02
"""One run that takes so long tells enough."""


@dataclass(frozen=True, slots=True)
class LoadRecipe:
    """All that a copy is made of. Equal keys mean equal copies."""

    key: str
    spec: model.ModelSpec
    artifact: model_runtime.Artifact
    runtime: model_runtime.Runtime
    device: str


@dataclass(frozen=True, slots=True)
class LoadedCopy:
    """A copy that was just loaded.

    `footprint` is what the process grew by and, `mapped_bytes` of it, what the copy maps. `run_s` is how long one made-up row takes, if one
    could be made up. `is_measured`: no other load ran beside it. `can_detach`: what is mapped can be let go of, and had again.
    """

    loaded: model_runtime.LoadedModel
    footprint: model.Footprint
    load_s: float
    run_s: float | None
    is_measured: bool
    mapped_bytes: int = 0
    can_detach: bool = False

    @property
    def private_bytes(self) -> int:
        """What of it no file backs: what stays when it is detached."""
        return self.footprint.host_bytes - self.mapped_bytes


@dataclass(slots=True, eq=False)
class LoadWindow:
    """The time of one load, until when it counts, what was freed within it, and whether another load fell into it."""

    until_s: float
    is_disturbed: bool = False
    freed_bytes: int = 0


def recipe(spec: model.ModelSpec, artifact: model_runtime.Artifact, device: str) -> LoadRecipe:
    """How to load the spec's artifact. Raises LoadFailed where no runtime takes it."""
    runtime = runtime_lookup.find(spec, artifact)
    shape = [_tensors(spec.inputs), _tensors(spec.outputs), spec.batching, spec.max_batch_size]
    identity = json.dumps(
        [runtime.name, device, spec.trust, shape, dict(spec.options)], sort_keys=True, default=str
    )
    return LoadRecipe(
        f"{artifact.digest}/{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
        spec,
        artifact,
        runtime,
        device,
    )


def _tensors(specs: tuple[model.TensorSpec, ...]) -> list[list[object]]:
    return [[spec.name, spec.datatype, list(spec.shape)] for spec in specs]


def made(recipe: LoadRecipe, need: model.Footprint, window: LoadWindow) -> LoadedCopy:
    """Load and measure. `need` is what the copy is expected to take. Raises LoadFailed, whatever went wrong."""
    try:
        recipe.runtime.prepare(recipe.device)
        before = process_memory.mark()
        began_s = time.perf_counter()
        loaded = recipe.runtime.load(recipe.artifact, recipe.spec, recipe.device)
        load_s = time.perf_counter() - began_s
        run_s = _timed(loaded)
    except errors.LoadFailed:
        raise
    except (
        Exception
    ) as error:  # a library may raise anything on a user's file, and the user must hear it
        raise errors.LoadFailed(f"{type(error).__name__}: {error}") from error
    capabilities = loaded.capabilities
    mapped_bytes = capabilities.mapped_bytes
    gpu_bytes = need.gpu_bytes if capabilities.gpu_bytes is None else capabilities.gpu_bytes
    host_bytes = (
        need.host_bytes
        if window.is_disturbed
        else process_memory.grown_bytes(before, window.freed_bytes) + mapped_bytes
    )
    return LoadedCopy(
        loaded=loaded,
        footprint=model.Footprint(host_bytes, gpu_bytes),
        load_s=load_s,
        run_s=run_s,
        is_measured=not window.is_disturbed,
        mapped_bytes=mapped_bytes,
        can_detach=capabilities.can_detach,
    )


def attached(skeleton: LoadedCopy, artifact: model_runtime.Artifact) -> LoadedCopy:
    """A copy out of what was kept of it. It is not measured again. Raises LoadFailed."""
    began_s = time.perf_counter()
    skeleton.loaded.attach(artifact)
    return replace(skeleton, load_s=time.perf_counter() - began_s, is_measured=False)


def _timed(loaded: model_runtime.LoadedModel) -> float | None:
    if loaded.probe is None:
        return None
    took_s: list[float] = []
    while len(took_s) < PROBES and max(took_s, default=0.0) < SLOW_S:
        began_s = time.perf_counter()
        loaded.predict(loaded.probe, ())
        took_s.append(time.perf_counter() - began_s)
    return min(took_s)
