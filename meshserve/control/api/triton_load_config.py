"""Apply Triton's model configuration, JSON in a load request, to the specs of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from meshserve import errors
from meshserve.control.api import rest_routes
from meshserve.core.values import model
from meshserve.storage import model_metadata, triton_config


def read(text: str) -> model_metadata.ModelDeclaration:
    """Return what a configuration declares. Raises InvalidRequest if the text is none."""
    try:
        return triton_config.read_json(rest_routes.json_object(text, "`config`"))
    except ValueError as error:
        raise errors.InvalidRequest(f"`config` is not a model configuration: {error}") from None


def redeclare(spec: model.ModelSpec, declared: model_metadata.ModelDeclaration) -> model.ModelSpec:
    """Return the spec with what the configuration states in place of its own.

    It has no labels, because no file of labels comes with a configuration.
    """
    return dataclasses.replace(
        spec,
        runtime=declared.runtime or spec.runtime,
        inputs=declared.inputs or spec.inputs,
        outputs=declared.outputs or spec.outputs,
        batching=declared.batching,
        max_batch_size=declared.max_batch_size or spec.max_batch_size,
        options={**spec.options, **declared.options},
        description=declared.description({}),
    )


def redeclare_all(
    specs: Sequence[model.ModelSpec], declared: model_metadata.ModelDeclaration
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
    return tuple(redeclare(by_version[version], declared) for version in served)
