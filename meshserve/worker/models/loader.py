"""Load one copy and measure its memory and times: the blocking part of a load."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import dataclass, replace
from pathlib import PurePath

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model, process_death
from meshserve.runtimes import runtime_lookup
from meshserve.worker.models import (
    described_folder,
    described_model,
    isolated_model,
    isolated_process,
    load_window,
    process_memory,
)

logger = logging.getLogger(__name__)

PROBES = 3
"""Runs of the probe after a load; the quickest is the model's expected time for one row."""

ALONE = "/alone"
"""What the keys of trials end with."""

SLOW_S = 0.02
"""After a run that takes longer, no further ones are made."""

HELD_BYTES_MIN = 1 << 20
"""Smaller artifacts that are read only once need no hold in the cache during their load.

They are loaded long before the cache could drop them, and a hold creates and removes a file, which
may take longer than the load.
"""


class ArtifactChanged(errors.LoadFailed):
    """The file behind a copy is not the one that its key names."""


@dataclass(frozen=True, slots=True)
class LoadRecipe:
    """All that a copy is made of. Equal keys mean equal copies.

    The key is the artifact's digest and a hash of the rest, so equal bytes under two names share
    one copy, and a changed artifact is another copy: nothing is ever reloaded in place. `whole` is
    what the storage holds, if the model is only a part of that. `is_isolated`: it is to run in a
    process of its own. `run_s` is how long a run may take.
    """

    key: str
    spec: model.ModelSpec
    artifact: model_runtime.Artifact
    runtime: model_runtime.Runtime
    device: str
    whole: model_runtime.Artifact | None = None
    is_isolated: bool = False
    run_s: float = math.inf

    @property
    def stored(self) -> model_runtime.Artifact:
        """The artifact that the storage holds."""
        return self.whole or self.artifact

    @property
    def journal_key(self) -> str:
        """The key under which its code runs in the worker's process, empty if it does not."""
        return "" if self.is_isolated else self.key

    @property
    def is_held(self) -> bool:
        """Whether the artifact is held while its copy lives."""
        return self.runtime.needs_files or self.artifact.size_bytes >= HELD_BYTES_MIN

    @property
    def process(self) -> isolated_process.IsolatedProcess | None:
        """The process of the copy that was loaded last, if it has one of its own."""
        runtime = self.runtime
        return runtime.process if isinstance(runtime, isolated_model.IsolatedRuntime) else None

    def death_by(self, error: errors.MeshError) -> process_death.ProcessDeath | None:
        """Return how the copy's process ended, if the error of its load tells that it died."""
        is_its_death = self.process is not None and isinstance(error, errors.LoadDied)
        return self.process.death if self.process and is_its_death else None


@dataclass(frozen=True, slots=True)
class LoadedCopy:
    """A copy that was loaded or attached.

    `footprint` is the growth of the process; `mapped_bytes` of it are mapped files. `run_s` is the
    time of a run of one row, None without a probe. `is_measured`: the load ran alone. A copy with a
    `process` of its own takes all of its footprint there.
    """

    loaded: model_runtime.LoadedModel
    footprint: model.Footprint
    load_s: float
    run_s: float | None
    is_measured: bool
    mapped_bytes: int = 0
    can_detach: bool = False
    process: isolated_process.IsolatedProcess | None = None

    @property
    def freed_bytes(self) -> int:
        """The bytes of the worker's own process that closing the copy frees."""
        return 0 if self.process else self.private_bytes

    @property
    def private_bytes(self) -> int:
        """The bytes that a detached copy still takes."""
        return self.footprint.host_bytes - self.mapped_bytes


def make_recipe(
    spec: model.ModelSpec,
    artifact: model_runtime.Artifact,
    device: str,
    isolate_default: str = "none",
    predict_timeout_s: float | None = None,
) -> LoadRecipe:
    """Return how to load the artifact as `spec` says.

    `isolate_default` and `predict_timeout_s` are the pool's, for a spec that leaves them open.
    Raises LoadFailed if no runtime takes the artifact.
    """
    if spec.predict_timeout_s is not None:
        predict_timeout_s = spec.predict_timeout_s
    whole = artifact
    is_isolated = (spec.isolate or isolate_default) == "process"
    spec, artifact = described_folder.resolve(spec, artifact)
    runtime = runtime_lookup.find(spec, artifact)
    shape = [_as_json(spec.inputs), _as_json(spec.outputs), spec.batching, spec.max_batch_size]
    parts: list[object] = [
        runtime.name,
        runtime.copy_name(artifact, spec),
        device,
        spec.trust,
        shape,
        dict(spec.options),
        spec.description,
        spec.sample,
        is_isolated,
    ]
    if predict_timeout_s:
        # Only then: quarantines of copies without a limit are saved by keys without it.
        parts.append(predict_timeout_s)
    identity = json.dumps(parts, sort_keys=True, default=str)
    key = f"{artifact.digest}/{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    run_s = predict_timeout_s or math.inf
    return LoadRecipe(key, spec, artifact, runtime, device, whole, is_isolated, run_s)


def isolated(recipe: LoadRecipe) -> LoadRecipe:
    """Return how to load the same in a process of its own, as a trial: another copy."""
    return replace(recipe, key=alone_key(recipe.key), is_isolated=True)


def alone_key(key: str) -> str:
    """Return the key of the copy that is the trial of the copy with this key."""
    return key + ALONE


def tried_key(key: str) -> str:
    """Return the key of the copy whose trial this is, empty if it is no trial."""
    return key.removesuffix(ALONE) if key.endswith(ALONE) else ""


def _as_json(specs: tuple[model.TensorSpec, ...]) -> list[list[object]]:
    return [[spec.name, spec.datatype, list(spec.shape)] for spec in specs]


def load(
    recipe: LoadRecipe,
    need: model.Footprint,
    window: load_window.LoadWindow,
    meter: process_memory.ProcessMeter = process_memory.OWN,
) -> LoadedCopy:
    """Load and measure; a disturbed load is booked as `need`, its expected footprint.

    Raises LoadFailed, or MissingExtra.
    """
    try:
        # The library is imported before the mark, because its memory is not the model's.
        recipe.runtime.prepare(recipe.device)
        before = meter.mark()
        began_s = meter.now_s()
        loaded = described_model.load(recipe.runtime, recipe.artifact, recipe.spec, recipe.device)
        load_s = meter.now_s() - began_s
        # Run before measuring: a first run allocates memory that later runs use again.
        run_s = _time_run(loaded, meter)
        process = recipe.process
        is_measured = process is not None or not window.is_disturbed
        if process is not None:
            host_bytes = process.measure_footprint()
        elif is_measured:
            grown_bytes = meter.grown_bytes(before, window.freed_bytes, has_runs=window.has_runs)
            host_bytes = grown_bytes + loaded.capabilities.mapped_bytes
        else:
            host_bytes = need.host_bytes
    except BaseException as error:
        if recipe.process is not None:
            recipe.process.discard("its load failed")
        raise _as_load_error(error, recipe.artifact.path) from error
    _warn_of_unknown_outputs(loaded, recipe)
    capabilities = loaded.capabilities
    gpu_bytes = need.gpu_bytes if capabilities.gpu_bytes is None else capabilities.gpu_bytes
    return LoadedCopy(
        loaded=loaded,
        footprint=model.Footprint(host_bytes, gpu_bytes),
        load_s=load_s,
        run_s=run_s,
        is_measured=is_measured,
        mapped_bytes=capabilities.mapped_bytes,
        can_detach=capabilities.can_detach,
        process=process,
    )


def _warn_of_unknown_outputs(loaded: model_runtime.LoadedModel, recipe: LoadRecipe) -> None:
    if not loaded.signature.outputs:
        logger.warning(
            "%s was not tried with made-up inputs, or refused them: its outputs are not known "
            "before its first answer, unless `outputs` are declared",
            recipe.spec.id,
        )


def _as_load_error(error: BaseException, path: PurePath) -> BaseException:
    """Return the error of a load, whatever a library raises for the user's file at `path`."""
    match error:
        case errors.LoadFailed():
            message = _without_folder(error.message, path)
            return type(error)(message, retry_after_s=error.retry_after_s)
        case errors.ModelDied():
            return errors.LoadDied(error.message)
        case Exception():
            return errors.LoadFailed(_without_folder(errors.words_of(error), path))
        case _:
            return error


def _without_folder(message: str, path: PurePath) -> str:
    """Return the message without the artifact's folder, which libraries quote.

    It is a place on the server, mostly in the cache, and of no use to a caller.
    """
    return message.replace(f"{path.parent}/", "")


def attach(
    detached: LoadedCopy,
    artifact: model_runtime.Artifact,
    meter: process_memory.ProcessMeter = process_memory.OWN,
) -> LoadedCopy:
    """Return the detached copy, attached to its artifact again. Raises LoadFailed."""
    began_s = meter.now_s()
    detached.loaded.attach(artifact)
    # Its growth now says nothing of the footprint of a whole load.
    return replace(detached, load_s=meter.now_s() - began_s, is_measured=False)


def _time_run(
    loaded: model_runtime.LoadedModel, meter: process_memory.ProcessMeter
) -> float | None:
    """Return the seconds of one row's run, or None if no input could be made up."""
    if loaded.probe is None:
        return None
    runs_s: list[float] = []
    while len(runs_s) < PROBES and max(runs_s, default=0.0) < SLOW_S:
        began_s = meter.now_s()
        loaded.predict(loaded.probe, ())
        runs_s.append(meter.now_s() - began_s)
    return min(runs_s)
