"""What `config check` looks at on this machine: the port, folders, models' files and libraries.

A configuration may be good for another machine: these faults are of this one.
"""

from __future__ import annotations

import collections
import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from meshserve import config, errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.gateway.envoy import listener
from meshserve.launch import state_lock
from meshserve.runtimes import files, runtime_lookup
from meshserve.storage import model_uri, repository_scan

MIB = 1 << 20

PROCESS_BYTES = 90 * MIB
"""What a worker takes without any model or library of one."""

HOUR_NS = 3600 * 10**9
SHOWN_MAX = 3
"""Models of a repository that are named for one fault."""

LIBRARIES = {"onnx": "onnxruntime"}
"""Those that runtimes do not name, because a worker has room for them at all times."""

CODE_ENDINGS = frozenset({".py", ".pkl", ".pickle", ".joblib"})


class LocalModel(NamedTuple):
    """A model whose file is here, and the place of its entry in the configuration."""

    place: tuple[str | int, ...]
    spec: model.ModelSpec
    path: Path


class ModelFault(NamedTuple):
    """What is wrong with a model: of which key of its entry, and in words."""

    key: str
    message: str


def place_faults(settings: config.Config) -> Iterator[config.Diagnostic]:
    """Yield why a mesh could not begin here: its port, or its folders."""
    # The mesh that runs with this state directory has the port, and `up` changes it.
    if state_lock.find_holder(settings.state_dir) is None:
        try:
            listener.check_is_free(settings.gateway.listen)
        except OSError as error:
            yield config.Diagnostic(("gateway", "listen"), str(error.strerror or error))
    is_postgres = settings.registry_url.startswith("postgresql")
    if is_postgres and importlib.util.find_spec("psycopg") is None:
        yield config.Diagnostic(
            ("registry", "url"), "it needs psycopg: pip install 'meshserve[postgres]'"
        )
    folders = {("state_dir",): settings.state_dir, ("cache", "path"): settings.cache.path}
    for key, folder in folders.items():
        reason = _why_unwritable(folder) if folder is not None else ""
        if reason:
            yield config.Diagnostic(key, reason)


def _why_unwritable(folder: Path) -> str:
    """Return why the folder can't be made or written to, empty if it can."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        return f"{existing} is no folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{existing} can't be written to by this user"
    return ""


def model_faults(settings: config.Config) -> Iterator[config.Diagnostic]:
    """Yield why models of local files would not load here; nothing of their code is run."""
    for local in _entries(settings):
        fault = _fault(local, settings)
        if fault is not None:
            yield config.Diagnostic((*local.place, fault.key), fault.message)
    for index in range(len(settings.repositories)):
        yield from _repository_faults(settings, index)


def _entries(settings: config.Config) -> Iterator[LocalModel]:
    for index, entry in enumerate(settings.models):
        if "://" not in entry.uri and Path(entry.uri).exists():
            spec = entry.spec(0.0, model.FROM_CONFIG)
            yield LocalModel(("models", index), spec, Path(entry.uri))


def _repository_faults(settings: config.Config, index: int) -> Iterator[config.Diagnostic]:
    repository = settings.repositories[index].settings()
    place = repository.place
    folder = Path(model_uri.parse(place).path)
    pattern = model.ModelSpec(
        model.ModelId(""),
        "",
        pool=repository.pool,
        trust=repository.trust,
        origin=repository.origin,
    )
    try:
        # Files that were written just now are looked at too: nothing is served of them here.
        scan = repository_scan.scan(folder, pattern, time.time_ns() + HOUR_NS)
    except errors.LoadFailed as error:
        yield config.Diagnostic(("repositories", index), error.message)
        return
    names: dict[ModelFault, list[str]] = collections.defaultdict(list)
    for spec in scan.specs:
        path = Path(model_uri.parse(spec.uri).path)
        fault = _fault(LocalModel(("repositories", index), spec, path), settings)
        if fault is not None:
            names[fault].append(spec.id.name)
    for problem in scan.problems[:SHOWN_MAX]:
        yield config.Diagnostic(("repositories", index), problem)
    for fault, models in names.items():
        more = f" and {len(models) - SHOWN_MAX} more" if len(models) > SHOWN_MAX else ""
        shown = f"{', '.join(models[:SHOWN_MAX])}{more}: {fault.message}"
        yield config.Diagnostic(("repositories", index, fault.key), shown)


def _fault(local: LocalModel, settings: config.Config) -> ModelFault | None:
    """Return why the model would not load, None if nothing of it shows without a load."""
    spec, path = local.spec, local.path
    size_bytes = path.stat().st_size if path.is_file() else 0
    artifact = model_runtime.Artifact(path, "", size_bytes)
    try:
        runtime = runtime_lookup.find(spec, artifact)
        file = Path(files.chosen_path(spec, artifact))
    except errors.MeshError as error:
        return ModelFault("uri" if local.place[0] == "models" else "path", error.message)
    if not spec.trust and _is_code(runtime.name, file):
        return ModelFault(
            "trust",
            "it is code: set trust: true if you trust whoever made it, or save it with skops",
        )
    library = runtime.library or LIBRARIES.get(runtime.name, "")
    if library and importlib.util.find_spec(library.partition(".")[0]) is None:
        return ModelFault("runtime", f"it needs {library}: pip install 'meshserve[{runtime.name}]'")
    return _budget_fault(runtime, spec.pool, size_bytes, settings)


def _is_code(runtime: str, file: Path) -> bool:
    if runtime == "python":
        return True
    endings = {path.suffix for path in (file.iterdir() if file.is_dir() else (file,))}
    # A folder with a skops file beside the pickle is read by the first.
    return runtime == "sklearn" and bool(endings & CODE_ENDINGS) and ".skops" not in endings


def _budget_fault(
    runtime: model_runtime.Runtime, pool: str, size_bytes: int, settings: config.Config
) -> ModelFault | None:
    section = settings.pools.get(pool)
    needed_bytes = PROCESS_BYTES + runtime.library_bytes + size_bytes
    if section is None or section.memory >= needed_bytes:
        return None
    return ModelFault(
        "pool",
        f"pool {pool} has {section.memory / MIB:.0f} MiB for a worker, of which the process takes "
        f"about {PROCESS_BYTES / MIB:.0f} and {runtime.library or 'the runtime'} "
        f"{runtime.library_bytes / MIB:.0f}: give it `memory` of {needed_bytes / MIB + 1:.0f} MiB "
        "or more",
    )
