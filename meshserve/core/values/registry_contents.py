"""The content of the registry, and the changes that are saved in it."""

from __future__ import annotations

from dataclasses import dataclass

from meshserve.core.values import catalog, containment, desired, nodes

RegistryChange = (
    catalog.ModelDeclared
    | catalog.ModelWithdrawn
    | desired.DesiredAlias
    | catalog.AliasCleared
    | desired.Desired
    | containment.CopyQuarantined
    | containment.QuarantineEnded
    | nodes.NodeDraining
    | nodes.NodeDrainingEnded
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


@dataclass(frozen=True, slots=True)
class WriteLease:
    """Who writes a registry.

    `holder` is the id of one start of a mesh, empty if nobody writes; `about` says in words which
    mesh it is. `epoch` grows whenever a controller takes the lease, `beats` with each of its writes
    and signs of life. No time is in it: clocks of two machines can't be compared.
    """

    holder: str = ""
    about: str = ""
    epoch: int = 0
    beats: int = 0
