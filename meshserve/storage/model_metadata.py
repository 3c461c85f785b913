"""What a model's own description says, whichever system's it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshserve.core.values import model

DATATYPES = frozenset(
    (
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "FP32",
        "FP64",
        "BF16",
        "BYTES",
    )
)


@dataclass(frozen=True, slots=True)
class Versions:
    """Which versions of a model are served: those that are listed, else the newest `latest`, else all."""

    latest: int | None = None
    listed: frozenset[str] | None = None

    def chosen(self, there: list[str]) -> list[str]:
        """The versions to serve of those that are there, whole numbers, in their order."""
        if self.listed is not None:
            return [version for version in there if version in self.listed]
        newest_first = sorted(there, key=int, reverse=True)
        return [version for version in there if version in newest_first[: self.latest]]


@dataclass(frozen=True, slots=True)
class ModelDeclaration:
    """What was stated; all else is empty or None. `version` and `uri` only where the description is of a single version."""

    name: str = ""
    version: str = ""
    uri: str = ""
    runtime: str = ""
    inputs: tuple[model.TensorSpec, ...] = ()
    outputs: tuple[model.TensorSpec, ...] = ()
    max_batch_size: int | None = None
    batching: bool | None = None
    versions: Versions = Versions()
    options: Mapping[str, object] = field(default_factory=dict)


def tensor(name: object, datatype: object, shape: object) -> model.TensorSpec:
    """One input or output. Raises ValueError with what is wrong."""
    if not isinstance(name, str) or not name:
        raise ValueError("an input or output has no name")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise ValueError(f"tensor {name!r}: {datatype!r} is not a datatype")
    if not isinstance(shape, list) or not all(
        isinstance(size, int) and size >= -1 for size in shape
    ):
        raise ValueError(f"tensor {name!r}: {shape!r} is not a shape: sizes, and -1 for any")
    return model.TensorSpec(name, datatype, tuple(int(size) for size in shape))


def check_name(name: str) -> str:
    """The name. Raises ValueError where it can't be a model's."""
    if not name or name != name.strip() or "/" in name or not name.isprintable():
        raise ValueError(
            f"{name!r} can't be a model's name: it must be printable, without '/' and without spaces at its ends"
        )
    return name
