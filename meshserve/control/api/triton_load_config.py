"""Apply Triton's model configuration, JSON in a load request, to the specs of a model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from meshserve import errors
from meshserve.control.api import rest_routes
from meshserve.core.values import model
from meshserve.storage import model_metadata, triton_config

Labels = Mapping[str, Sequence[str]]


def read(text: str) -> model_metadata.ModelDeclaration:
    """Return what a configuration declares. Raises InvalidRequest if the text is none."""
    try:
        return triton_config.read_json(rest_routes.json_object(text, "`config`"))
    except ValueError as error:
        raise errors.InvalidRequest(f"`config` is not a model configuration: {error}") from None


def take_labels(declared: model_metadata.ModelDeclaration, files: dict[str, bytes]) -> Labels:
    """Return the labels by output, from the files that the configuration names.

    Files beside those of versions are taken out of `files`. Raises InvalidRequest if one is
    missing or no text.
    """
    names = set(declared.label_files.values())
    texts = {name: files[name] for name in names if name in files}
    for name in names:
        if name not in texts:
            raise errors.InvalidRequest(
                f"`config` names the labels {name!r}, which did not come: send them as file:{name}"
            )
        if "/" not in name:
            del files[name]
    try:
        return {
            output: triton_config.label_lines(texts[name], name)
            for output, name in declared.label_files.items()
        }
    except ValueError as error:
        raise errors.InvalidRequest(str(error)) from None


def redeclare(
    spec: model.ModelSpec,
    declared: model_metadata.ModelDeclaration,
    labels: Labels | None = None,
) -> model.ModelSpec:
    """Return the spec with what the configuration states in place of its own, and these labels.

    An output without new labels keeps those that it has: a configuration names files of labels, and
    does not bring them.
    """
    kept = json.loads(spec.description)["labels"] if spec.description else {}
    return dataclasses.replace(
        spec,
        runtime=declared.runtime or spec.runtime,
        inputs=declared.inputs or spec.inputs,
        outputs=declared.outputs or spec.outputs,
        batching=declared.batching,
        max_batch_size=declared.max_batch_size or spec.max_batch_size,
        options={**spec.options, **declared.options},
        description=declared.description({**kept, **(labels or {})}),
    )


def redeclare_all(
    specs: Sequence[model.ModelSpec],
    declared: model_metadata.ModelDeclaration,
    labels: Labels | None = None,
) -> tuple[model.ModelSpec, ...]:
    """Return all versions of a model that the configuration serves, redeclared.

    Raises InvalidRequest if its version policy serves none of them.
    """
    # A policy chooses among whole numbers; other versions can't be written in one.
    by_version: Mapping[str, model.ModelSpec] = {spec.id.version: spec for spec in specs}
    are_numbers = all(version.isascii() and version.isdecimal() for version in by_version)
    served = declared.versions.choose(sorted(by_version, key=int)) if are_numbers else by_version
    if not served:
        raise errors.InvalidRequest(
            f"`config`: version_policy serves none of the versions {', '.join(by_version)}"
        )
    return tuple(redeclare(by_version[version], declared, labels) for version in served)
