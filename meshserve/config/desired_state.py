"""Translate a configuration to the core's desired state of the mesh."""

from __future__ import annotations

import logging

import orjson

from meshserve import config, errors
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import catalog, desired, model, registry_contents

logger = logging.getLogger(__name__)


def from_config(
    settings: config.Config, capacity: cluster_control.WorkerCapacity
) -> desired.Desired:
    """Return the desired state; `capacity` gives the numbers that `auto` stands for.

    Raises ConfigInvalid if the cluster has too few GPUs.
    """
    return desired.Desired(
        pools=tuple(settings.pool_settings(name, capacity) for name in settings.pools),
        gateway=settings.gateway.settings(),
        models=settings.model_specs(),
        aliases=tuple(alias for entry in settings.models for alias in entry.desired_aliases()),
        repositories=tuple(entry.settings() for entry in settings.repositories),
        llms=tuple(entry.spec_on(capacity) for entry in settings.llms),
        document=orjson.dumps(config.document(settings)).decode(),
    )


def from_document(text: str, capacity: cluster_control.WorkerCapacity) -> desired.Desired:
    """Return the desired state in a JSON document. Raises ConfigInvalid."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise errors.ConfigInvalid(f"the configuration is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise errors.ConfigInvalid("the configuration is not a JSON object")
    return from_config(config.parse(document), capacity)


def from_registry(
    contents: registry_contents.RegistryContents,
    capacity: cluster_control.WorkerCapacity,
    *,
    is_needed: bool,
) -> desired.Desired:
    """Return the last desired state, or an empty one if there was none.

    Raises ConfigInvalid if the kept document cannot be read any more and `is_needed`.
    """
    if not contents.document:
        return desired.Desired(pools=())
    try:
        return from_document(contents.document, capacity)
    except errors.ConfigInvalid as error:
        if is_needed:
            raise
        # A new configuration follows. It is compared with the models of the last one, so that
        # those which it leaves out are removed.
        logger.warning("the last configuration can't be read any more: %s", error.message)
        specs = (
            change.spec for change in contents.changes if isinstance(change, catalog.ModelDeclared)
        )
        return desired.Desired(
            pools=(), models=tuple(spec for spec in specs if spec.origin == model.FROM_CONFIG)
        )
