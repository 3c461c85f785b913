from __future__ import annotations

from typing import get_args

from meshserve.core.values import mesh_events


def test_all_kinds_are_listed_once() -> None:
    kinds = [*get_args(mesh_events.CopyKind), *get_args(mesh_events.MeshKind)]
    assert sorted(mesh_events.KINDS) == sorted(set(kinds)) == sorted(kinds)
