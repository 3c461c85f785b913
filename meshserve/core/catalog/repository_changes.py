"""What the scan of a repository changes in the catalog."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from meshserve.core.catalog import catalog_index, changeset, load_overrides
from meshserve.core.values import desired, model

NOT_SERVED = " is not served: "
"""What the words about a repository's model say, before the reason, if its name is taken."""


def draft_scan(
    index: catalog_index.CatalogIndex,
    draft: changeset.Changeset,
    origin: model.Origin,
    specs: Iterable[model.ModelSpec],
) -> list[str]:
    """Draft what changed in a repository.

    A model whose name belongs to another origin, an alias or an LLM is left out; the words that
    are returned say so.
    """
    problems: list[str] = []
    # Names that were served from here before are looked at too: their models may be gone.
    held: dict[str, list[model.ModelSpec]] = {
        id_.name: [] for id_ in sorted(index.of_origin(origin))
    }
    for spec in specs:
        held.setdefault(spec.id.name, []).append(spec)
    for name, of_name in held.items():
        problem = _name_problem(draft, name, origin)
        if problem:
            problems += (
                f"model {str(spec.id)!r} of {changeset.owned_by(origin)}{NOT_SERVED}{problem}"
                for spec in of_name
            )
            # A configuration may have given a name that was served from here to an alias or an LLM.
            draft.withdraw(spec.id for spec in draft.of_name(name) if spec.origin == origin)
        elif not load_overrides.survives(draft, name, of_name):
            load_overrides.put(draft, tuple(draft.of_name(name)), of_name)
    return problems


def as_configured(
    specs: Iterable[model.ModelSpec], repository: desired.RepositorySettings
) -> tuple[model.ModelSpec, ...]:
    """Return scanned specs as the next scan will declare them by the repository's settings.

    Otherwise a pool could not be renamed: its models would be in a pool that there is no more.
    """
    return tuple(
        dataclasses.replace(spec, pool=repository.pool, trust=repository.trust) for spec in specs
    )


def _name_problem(draft: changeset.Changeset, name: str, origin: model.Origin) -> str:
    """Return why the repository can't serve a model of this name, empty if it can."""
    owner = draft.owner(name)
    if owner is not None and owner != origin:
        return f"the name belongs to {changeset.owned_by(owner)}"
    if draft.alias(name):
        return "the name is an alias"
    return "the name is an LLM's" if name in draft.llms else ""
