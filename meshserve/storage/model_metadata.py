"""The values that a model's own description declares, in whichever format it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from meshserve.core.values import model, reserved_names

_INTEGERS = ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")
DATATYPES = frozenset((*_INTEGERS, "BOOL", "FP16", "FP32", "FP64", "BF16", "BYTES"))


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """The versions to serve: those that are listed, else the newest `latest`, else all."""

    latest: int | None = None
    listed: frozenset[str] | None = None

    def choose(self, versions: Sequence[str]) -> list[str]:
        """Return the versions to serve, in the given order. Versions are whole numbers."""
        if self.listed is not None:
            return [version for version in versions if version in self.listed]
        # As numbers: as texts `9` comes after `10`.
        newest_first = sorted(versions, key=int, reverse=True)
        return [version for version in versions if version in newest_first[: self.latest]]


@dataclass(frozen=True, slots=True)
class ModelDeclaration:
    """A model's own description; what it does not state is empty or None.

    `version` and `uri` are stated only if the description is of a single version. `config` is
    Triton's model configuration as JSON, and `label_files` are its files of labels by output.
    """

    name: str = ""
    version: str = ""
    uri: str = ""
    runtime: str = ""
    inputs: tuple[model.TensorSpec, ...] = ()
    outputs: tuple[model.TensorSpec, ...] = ()
    max_batch_size: int | None = None
    batching: bool | None = None
    versions: VersionPolicy = VersionPolicy()
    options: Mapping[str, object] = field(default_factory=dict)
    config: str = ""
    label_files: Mapping[str, str] = field(default_factory=dict)

    def description(self, labels: Mapping[str, Sequence[str]]) -> str:
        """Return `ModelSpec.description` with these labels by output; empty without `config`."""
        if not self.config:
            return ""
        return json.dumps({"config": json.loads(self.config), "labels": labels}, ensure_ascii=False)


def tensor(name: object, datatype: object, shape: object) -> model.TensorSpec:
    """Return the spec of one input or output. Raises ValueError with what is wrong."""
    if not isinstance(name, str) or not name:
        raise ValueError("an input or output has no name")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise ValueError(f"tensor {name!r}: {datatype!r} is not a datatype")
    if not isinstance(shape, list) or not all(
        isinstance(size, int) and size >= -1 for size in shape
    ):
        raise ValueError(f"tensor {name!r}: {shape!r} is not a shape: sizes, and -1 for any")
    return model.TensorSpec(name, datatype, tuple(int(size) for size in shape))


def check_name(name: str) -> None:
    """Raise ValueError if a model can't have this name."""
    if not name or name != name.strip() or "/" in name or not name.isprintable():
        raise ValueError(
            f"{name!r} can't be a model's name: "
            "it must be printable, without '/' and without spaces at its ends"
        )
    reason = reserved_names.reason_against(name)
    if reason:
        raise ValueError(reason)
