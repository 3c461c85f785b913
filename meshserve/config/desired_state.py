"""Translate a configuration to the core's desired state of the mesh.

The kept document of a configuration has, beside what the user wrote, which weights each LLM was
found to have: a restarted controller must not take others for them.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

import orjson

from meshserve import config, errors
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import catalog, desired, llm_spec, model, registry_contents

WEIGHTS = "pinned_weights"
"""The key of the kept document that holds the LLMs' weights by their source."""

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
        logs=settings.logging.settings(),
        metrics=settings.metrics.settings(),
        document=orjson.dumps(config.document(settings)).decode(),
    )


def from_document(text: str, capacity: cluster_control.WorkerCapacity) -> desired.Desired:
    """Return the desired state in a JSON document. Raises ConfigInvalid."""
    return from_config(config.parse(_parsed(text)), capacity)


def _parsed(text: str) -> dict[str, object]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise errors.ConfigInvalid(f"the configuration is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise errors.ConfigInvalid("the configuration is not a JSON object")
    return document


def with_weights(
    state: desired.Desired, weights: Mapping[llm_spec.WeightsSource, llm_spec.Weights]
) -> desired.Desired:
    """Return the state with the weights that its LLMs and their adapters were found to have."""
    kept = [[*source, *identity] for source, identity in weights.items()]
    document = _parsed(state.document) | ({WEIGHTS: kept} if kept else {})
    return dataclasses.replace(
        state,
        llms=tuple(llm.with_weights(weights) for llm in state.llms),
        document=orjson.dumps(document).decode(),
    )


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
        return _from_kept(contents.document, capacity)
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


def _from_kept(text: str, capacity: cluster_control.WorkerCapacity) -> desired.Desired:
    document = _parsed(text)
    # No key of config.yaml, whose sections refuse what they do not know.
    kept = document.pop(WEIGHTS, None)
    state = from_config(config.parse(document), capacity)
    rows = kept if isinstance(kept, list) else []
    weights = {
        llm_spec.WeightsSource(uri, revision): llm_spec.Weights(*identity)
        for uri, revision, *identity in rows
    }
    return with_weights(state, weights)
