"""Folders that describe their model as Triton or MLServer has it, given as the `uri` of a model.

    config.pbtxt, <version>/files       or the files beside it
    model-settings.json, files          also one in each <version>/
    <version>/files                     alone, as TensorFlow Serving has it

Of several versions it is the sub-folder named like the model's own version, else the newest one
that the description serves. Below `repositories:` the same is read by `storage/repository_scan.py`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.storage import (
    content,
    mlserver_settings,
    model_metadata,
    model_uri,
    repository_names,
    triton_config,
)

TEXT_BYTES_MAX = 1 << 20
_DEFAULT_ROWS_MAX = model.ModelSpec.__dataclass_fields__["max_batch_size"].default


def resolve(
    spec: model.ModelSpec, artifact: model_runtime.Artifact
) -> tuple[model.ModelSpec, model_runtime.Artifact]:
    """Return the spec with what the folder declares besides, and the part that holds the model.

    Both are returned as they are if the artifact is no such folder, or was scanned in a repository.
    The spec's own fields count more: its description takes the place of the folder's
    configuration. Raises LoadFailed for a description that can't be read.
    """
    top = Path(artifact.path)
    is_scanned = spec.origin.kind is model.OriginKind.REPOSITORY
    if is_scanned or not top.is_dir() or (top / str(spec.options.get("file", "."))).is_file():
        return spec, artifact
    try:
        declared, folder, labels = _read(top, spec)
    except (OSError, ValueError) as error:
        raise errors.LoadFailed(str(error)) from None
    if not folder.resolve().is_relative_to(top.resolve()):
        raise errors.LoadFailed(f"the description names {declared.uri!r}, outside its folder")
    if not folder.exists():
        raise errors.LoadFailed(f"the description names {declared.uri!r}, which does not exist")
    return _merged(spec, declared, labels), _part(artifact, top, folder)


def _read(
    top: Path, spec: model.ModelSpec
) -> tuple[model_metadata.ModelDeclaration, Path, dict[str, list[str]]]:
    """Return what is declared, the path of the model, and its labels by output."""
    settings = top / mlserver_settings.FILE
    if settings.is_file():
        return *_read_settings(settings), {}
    declared = _read_configuration(top, spec.description)
    labels = _own_labels(top) if spec.description else {}
    labels |= triton_config.read_labels(top, declared.label_files)
    entries = [entry for entry in top.iterdir() if not content.is_hidden(entry.name)]
    is_triton = bool(declared.config)
    folders = {
        repository_names.version_of(entry.name, is_triton=is_triton): entry
        # Of `11` and `0011` the shorter one comes last, and stays, as in repositories.
        for entry in sorted(entries, key=lambda entry: -len(entry.name))
        if entry.is_dir()
    }
    folders.pop("", None)
    # Without a description the folders may be anything, if files lie beside them.
    is_described = is_triton or all(entry.is_dir() for entry in entries)
    if not folders or not is_described:
        return declared, top, labels
    served = declared.versions.choose(sorted(folders, key=int))
    if not served:
        raise ValueError(f"{triton_config.FILE}: version_policy serves none of {sorted(folders)}")
    version = spec.id.version if spec.id.version in served else max(served, key=int)
    folder = folders[version]
    if (folder / mlserver_settings.FILE).is_file():
        return *_read_settings(folder / mlserver_settings.FILE), {}
    return declared, folder, labels


def _read_configuration(top: Path, description: str) -> model_metadata.ModelDeclaration:
    """Return what the description declares, else what the folder's configuration does."""
    if description:
        return triton_config.read_json(json.loads(description)["config"])
    configuration = top / triton_config.FILE
    if not configuration.is_file():
        return model_metadata.ModelDeclaration()
    try:
        return triton_config.read(_text(configuration))
    except ValueError as error:
        raise ValueError(f"{triton_config.FILE}: {error}") from None


def _own_labels(top: Path) -> dict[str, list[str]]:
    """Return the labels of the folder's own configuration, in whose place another one came."""
    try:
        return triton_config.read_labels(top, _read_configuration(top, "").label_files)
    except ValueError:
        # What the other configuration replaces need not be right.
        return {}


def _read_settings(settings: Path) -> tuple[model_metadata.ModelDeclaration, Path]:
    try:
        declared = mlserver_settings.read(_text(settings))
    except ValueError as error:
        raise ValueError(f"{mlserver_settings.FILE}: {error}") from None
    if model_uri.SCHEME.match(declared.uri):
        raise ValueError(
            f"{mlserver_settings.FILE} says that the model is at "
            f"{model_uri.redacted(declared.uri)}: give that as the model's uri"
        )
    return declared, settings.parent / declared.uri


def _text(file: Path) -> str:
    with file.open("rb") as stream:
        text = stream.read(TEXT_BYTES_MAX + 1)
    if len(text) > TEXT_BYTES_MAX:
        raise ValueError(f"it is bigger than {TEXT_BYTES_MAX} bytes")
    return text.decode()


def _merged(
    spec: model.ModelSpec,
    declared: model_metadata.ModelDeclaration,
    labels: dict[str, list[str]],
) -> model.ModelSpec:
    # A spec does not tell whether its number was stated, so the default counts as not stated.
    has_own_rows = spec.max_batch_size != _DEFAULT_ROWS_MAX
    return replace(
        spec,
        runtime=_runtime(spec.runtime, declared.runtime),
        inputs=spec.inputs or declared.inputs,
        outputs=spec.outputs or declared.outputs,
        batching=declared.batching if spec.batching is None else spec.batching,
        max_batch_size=spec.max_batch_size
        if has_own_rows
        else declared.max_batch_size or spec.max_batch_size,
        options={**declared.options, **spec.options},
        description=declared.description(labels) or spec.description,
    )


def _runtime(own: str, declared: str) -> str:
    """Return the model's own runtime, or the declared one; a class named by it is of `python`."""
    return declared if own == "python" and "." in declared else own or declared


def _part(artifact: model_runtime.Artifact, top: Path, folder: Path) -> model_runtime.Artifact:
    """Return a part of an artifact as one of its own, with a digest that no other part has."""
    if folder == top:
        return artifact
    name = folder.relative_to(top)
    digest = hashlib.sha256(f"{artifact.digest}/{name}".encode()).hexdigest()
    size_bytes = content.count_bytes(folder)
    return replace(artifact, path=folder, digest=f"sha256:{digest}", size_bytes=size_bytes)
