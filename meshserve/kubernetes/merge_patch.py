"""Merge what a user gives into a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# By what the entries of a list of Kubernetes or KubeRay are told apart.
KEYS = ("groupName", "name")


def merged(target: Any, patch: Any) -> Any:
    """Return `target` changed by `patch`; neither is changed.

    Mappings are merged by key, and a key with null is removed (RFC 7396). Lists whose entries all
    have a name are merged by name. All else is replaced.
    """
    if isinstance(target, Mapping) and isinstance(patch, Mapping):
        return _merged_mapping(target, patch)
    key = _common_key(target, patch)
    return _merged_list(target, patch, key) if key else patch


def _merged_mapping(target: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    removed = {key for key, value in patch.items() if value is None}
    kept = {key: value for key, value in target.items() if key not in removed}
    changed = {
        key: merged(target[key], value) if key in target else value
        for key, value in patch.items()
        if key not in removed
    }
    return kept | changed


def _common_key(target: Any, patch: Any) -> str | None:
    if not (isinstance(target, list) and isinstance(patch, list) and patch):
        return None
    entries = [*target, *patch]
    return next((key for key in KEYS if all(_has(entry, key) for entry in entries)), None)


def _has(entry: Any, key: str) -> bool:
    return isinstance(entry, Mapping) and key in entry


def _merged_list(target: Sequence[Any], patch: Sequence[Any], key: str) -> list[Any]:
    changes = {entry[key]: entry for entry in patch}
    known = {entry[key] for entry in target}
    changed = [
        merged(entry, changes[entry[key]]) if entry[key] in changes else entry for entry in target
    ]
    return [*changed, *(entry for entry in patch if entry[key] not in known)]
