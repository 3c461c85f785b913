"""The content of the registry, and the changes that are saved in it."""

from __future__ import annotations

from dataclasses import dataclass

from meshserve.core.values import catalog, containment, desired

RegistryChange = (
    catalog.ModelDeclared
    | catalog.ModelWithdrawn
    | desired.DesiredAlias
    | catalog.AliasCleared
    | desired.Desired
    | containment.CopyQuarantined
    | containment.QuarantineEnded
)


@dataclass(frozen=True, slots=True)
class RegistryContents:
    """The content of a registry: the changes that make the catalog, and the last configuration.

    `document` is the JSON text of the last configuration, empty if none was ever applied.
    `mesh_id` names the registry; it is made with it and never changes.
    """

    changes: tuple[RegistryChange, ...] = ()
    document: str = ""
    mesh_id: str = ""
