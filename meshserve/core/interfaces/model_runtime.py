"""What the core's decisions need from the outside, as Protocols that the edges implement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol, TypeAlias

from meshserve.core.values import model

if TYPE_CHECKING:
    import numpy as np

    Tensors: TypeAlias = "Mapping[str, np.ndarray]"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model's bytes on this node: a file or a folder that nobody changes any more.

    `digest` is `sha256:<hex>` of the content and the same for the same bytes wherever they came from; `size_bytes` is their sum.
    `is_ours`: the files belong to meshserve. What was found out about them stays true, and they may be mapped: nobody truncates them.
    """

    path: PurePath
    digest: str
    size_bytes: int
    is_ours: bool = False


class LoadedModel(Protocol):
    """A model in memory. One thread at a time calls `predict`, unless `is_reentrant`."""

    signature: model.Signature
    is_reentrant: bool

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Run the model.

        `inputs` were checked against the signature (names, datatypes, ranks, fixed dimensions). `outputs` names what is asked for; empty
        means all.
        Datatypes are numpy's for the protocol's words: BYTES is an object array of bytes, BF16 is carried as uint16 bits.
        Raises InvalidRequest for values that the model can't take, and anything else that the model's own code raises.
        """
        ...

    def close(self) -> None:
        """Give the memory back. Called once, when nobody uses the model any more."""
        ...


class Parkable(Protocol):
    """A loaded model that can leave its GPU, keep its weights in host memory, and come back without its file."""

    def park(self) -> None:
        """Move everything from the GPU to host memory."""
        ...

    def unpark(self) -> None:
        """Move everything back to the GPU."""
        ...


class Detachable(Protocol):
    """A loaded model with weights in a mapped file, whose pages all processes of a node share."""

    mapped_bytes: int
    can_detach: bool

    def detach(self) -> None:
        """Let the weights go. What is left takes little, and is of no use until they are attached again. Only if it `can_detach`."""
        ...

    def attach(self, artifact: Artifact) -> None:
        """Have the same weights again from the same bytes. Raises LoadFailed."""
        ...


class Runtime(Protocol):
    """Loads one kind of model. The only code that imports that kind's library.

    It may say `reads_files = False`: its models need no file any more once they are loaded.
    """

    name: str

    def accepts(self, artifact: Artifact) -> bool:
        """Whether this artifact looks like one of its own, judged by names and first bytes without importing the library."""
        ...

    def prepare(self, device: str) -> None:
        """Import the library and check the device, so that the first load's footprint is the model's alone.

        Raises MissingExtra or LoadFailed.
        """
        ...

    def footprint_hint(self, artifact: Artifact, device: str) -> model.Footprint:
        """An upper guess of the footprint, used only until the first load has measured it."""
        ...

    def load(self, artifact: Artifact, spec: model.ModelSpec, device: str) -> LoadedModel:
        """Load onto `device` (`cpu` or `cuda`), and run once where inputs can be made up.

        Raises LoadFailed with the reason for a user, MissingExtra where the library is not installed.
        """
        ...


class Storage(Protocol):
    """Brings artifacts to this node."""

    async def fetch(self, uri: str, checksum: str) -> Artifact:
        """The artifact behind `uri`, from the cache where it is there. Raises LoadFailed with the reason for a user."""
        ...

    def hold(self, artifact: Artifact) -> None:
        """The artifact's files must stay from now on: a copy may read them while it lives."""
        ...

    def release(self, artifact: Artifact) -> None:
        """Take one hold back."""
        ...

    async def close(self) -> None:
        """Let go of everything that only this process needed."""
        ...
