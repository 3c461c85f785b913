"""What a rule of KubeRay's operator finds, and how rules look at manifests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class RuleFault(NamedTuple):
    """A rule, the manifest's field that breaks it, and what would be right."""

    rule: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.message} (KubeRay's rule {self.rule}, field {self.field})"


def mapping(value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, else an empty one: schemas refuse other values."""
    return value if isinstance(value, Mapping) else {}


def entries(value: Any) -> list[Mapping[str, Any]]:
    """Return the mappings in a list; none if `value` is no list."""
    return (
        [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
    )


def pod_spec(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the specification of a group's pods."""
    return mapping(mapping(group.get("template")).get("spec"))


def ray_container(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the container of a group in which Ray runs: the first one."""
    return next(iter(entries(pod_spec(group).get("containers"))), {})


def variables(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container's environment: values by name, None for those of other sources."""
    return {str(entry.get("name")): entry.get("value") for entry in entries(container.get("env"))}


def version(text: object) -> tuple[int, ...] | None:
    """Return the numbers of a version such as 2.60.0; None if it is none."""
    numbers = str(text).removeprefix("v").split("-", 1)[0].split("+", 1)[0].split(".")
    if len(numbers) < 2 or not all(number.isdecimal() for number in numbers):  # noqa: PLR2004 - X.Y
        return None
    return tuple(map(int, numbers))
