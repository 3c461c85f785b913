"""What clients are told of a model in memory."""

from __future__ import annotations

from meshserve.core.memory import version_choice
from meshserve.core.values import catalog, model
from meshserve.protocol import model_description
from meshserve.worker.models import described_model, resident_model


def describe(
    name: str,
    held_id: model.ModelId,
    resident: resident_model.ResidentModel,
    served: catalog.Catalog,
) -> model_description.ServedModel:
    """Return the description of the copy that answers for `name`, and is bound to `held_id`."""
    id_ = version_choice.public_id(held_id)
    has_rows = resident.signature.has_batch_dimension and resident.spec.batching is not False
    return model_description.ServedModel(
        # By the name that the client knows, which may be an alias.
        id=model.ModelId(name, id_.version),
        versions=served.versions(id_.name),
        signature=resident.signature,
        platform=resident.platform,
        max_batch_size=resident.spec.max_batch_size if has_rows else 0,
        is_joined=resident.batcher.joining.is_on,
        config=described_model.config_text(resident.spec),
    )


def ids(served: catalog.Catalog, name: str, version: str) -> list[model.ModelId]:
    """Return the ids of one version, or of all if `version` is empty. Raises ModelNotFound."""
    id_ = served.resolve(name, version)
    versions = (id_.version,) if version else served.versions(id_.name)
    return [model.ModelId(id_.name, number) for number in versions]
