"""Weights left in their file: a module's tensors point into a mapping of the archive that they came from.

torch writes each tensor's bytes into its archives as they are in memory, uncompressed and aligned. So a file that nobody writes to any more
can be mapped, its pages are shared by all processes of a node, and a module that was let go has its weights again in a millisecond.
Where a reader copies, which bytes are whose is found by comparing them: whatever the format, what a tensor points to is what was read.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from meshserve import errors
from meshserve.core.interfaces import model_runtime

FILE_BYTES_MIN = 1 << 20
"""Below it a copy costs less than a mapping, of which a process may have some tens of thousands."""

ALIGNED_BYTES = 64
"""What torch's allocator and its archives keep to. Kernels may choose their way by it, and answers would differ in their last bits."""

_LOCAL_HEADER = struct.Struct("<26xHH")
"""What stands before a member's bytes in a zip archive: at its end the lengths of the name and of the extra field that follow."""


@dataclass(frozen=True, slots=True)
class _File:
    """One file of an artifact: its place in it, and its length."""

    within: PurePath
    size_bytes: int

    def mapping(self, torch: Any, artifact: model_runtime.Artifact) -> Any:
        """The whole file as a storage. What a module writes to it is its own and never reaches the file."""
        path = Path(artifact.path, self.within)
        try:
            if path.stat().st_size != self.size_bytes:
                raise errors.LoadFailed(f"{path.name} is not the file that it was")
            return torch.UntypedStorage.from_file(str(path), shared=False, nbytes=self.size_bytes)
        except (OSError, RuntimeError) as error:
            raise errors.LoadFailed(f"{path.name} can't be mapped: {error}") from None


@dataclass(frozen=True, slots=True)
class TensorLocation:
    """One tensor of a module, and where in the file its bytes are. `first` counts elements of its own kind from the file's start."""

    tensor: Any
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Weights:
    """A module's tensors that lie in a file. `is_all`: the module has no others."""

    def __init__(
        self, torch: Any, places: Sequence[TensorLocation], file: _File, *, is_all: bool
    ) -> None:
        self.is_all = is_all
        self.mapped_bytes = sum({place.first: _length_bytes(place) for place in places}.values())
        self._torch = torch
        self._places = tuple(places)
        self._file = file

    def attach(self, artifact: model_runtime.Artifact) -> None:
        """Point the tensors into the artifact's file. Raises LoadFailed if it is not there as it was."""
        mapping = self._file.mapping(self._torch, artifact)
        for place in self._places:
            place.tensor.data = _empty_like(self._torch, place.tensor).set_(
                mapping, place.first, place.shape, place.strides
            )

    @property
    def tensors(self) -> list[Any]:
        """Those that lie in the file."""
        return [place.tensor for place in self._places]


def tensors(module: Any) -> list[Any]:
    """A module's parameters and buffers that have any bytes."""
    return [
        tensor
        for tensor in (*module.parameters(), *module.buffers())
        if tensor.untyped_storage().nbytes()
    ]


def let_go(torch: Any, given: Sequence[Any]) -> None:
    """Point tensors nowhere: what they take is free, whoever knows them. Modules are full of cycles, and the collector comes late."""
    for tensor in given:
        tensor.data = _empty_like(torch, tensor)


def opened(torch: Any, artifact: model_runtime.Artifact, path: Path) -> Mapped | None:
    """The artifact's file, mapped; None where that is no gain, or not safe."""
    file = _File(path.relative_to(artifact.path), path.stat().st_size)
    if file.size_bytes < FILE_BYTES_MIN or not artifact.is_cached:
        return None
    return Mapped(torch, file, file.mapping(torch, artifact), _stored(path))


class Mapped:
    """A file whose bytes are there to be pointed to."""

    def __init__(
        self, torch: Any, file: _File, mapping: Any, stored: Iterable[tuple[int, int]]
    ) -> None:
        self._torch = torch
        self._file = file
        self._mapping = mapping
        self._stored = frozenset(
            each for each in stored if not each[0] % ALIGNED_BYTES and sum(each) <= file.size_bytes
        )

    def member(self, start: int, length_bytes: int) -> Any | None:
        """A member of the archive as a storage; None where it is not stored as it is."""
        return (
            self._mapping[start : start + length_bytes]
            if (start, length_bytes) in self._stored
            else None
        )

    def weights(self, module: Any, artifact: model_runtime.Artifact) -> Weights | None:
        """The module's tensors, from now on in the file as far as their bytes are found there; None if none are."""
        given = tensors(module)
        search = _Search(self._torch, self._mapping, sorted(self._stored))
        places = [place for tensor in given if (place := search.place(tensor)) is not None]
        if not places:
            return None
        weights = Weights(self._torch, places, self._file, is_all=len(places) == len(given))
        weights.attach(artifact)
        return weights


class _Search:
    """Finds tensors' bytes in a file. No two storages get the same place: a module may write to one of them."""

    def __init__(self, torch: Any, mapping: Any, stored: Iterable[tuple[int, int]]) -> None:
        self._torch = torch
        self._bytes = torch.empty(0, dtype=torch.uint8).set_(mapping)
        self._found: dict[int, int | None] = {}
        self._free: dict[int, list[int]] = {}
        for start, length_bytes in stored:
            self._free.setdefault(length_bytes, []).append(start)

    def place(self, tensor: Any) -> TensorLocation | None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address not in self._found:
            self._found[address] = self._start(storage, address - self._bytes.data_ptr())
        start = self._found[address]
        if start is None:
            return None
        first = start // tensor.element_size() + tensor.storage_offset()
        return TensorLocation(tensor, first, tuple(tensor.shape), tuple(tensor.stride()))

    def _start(self, storage: Any, distance: int) -> int | None:
        """Where it lies already, or where the same bytes lie."""
        starts = self._free.get(storage.nbytes(), [])
        if distance in starts:
            starts.remove(distance)
            return distance
        given = self._torch.empty(0, dtype=self._torch.uint8).set_(storage)
        for start in starts:
            if self._is_same(given, self._bytes[start : start + storage.nbytes()]):
                starts.remove(start)
                return start
        return None

    def _is_same(self, one: Any, other: Any) -> bool:
        """Eight bytes at a time, which takes a quarter of the time."""
        words = len(one) // 8 * 8
        heads = (each[:words].view(self._torch.int64) for each in (one, other))
        return bool(self._torch.equal(*heads) and self._torch.equal(one[words:], other[words:]))


def _stored(file: Path) -> Iterator[tuple[int, int]]:
    """Where the bytes of each member begin that is stored as it is, and how many they are."""
    with zipfile.ZipFile(file) as archive, file.open("rb") as stream:
        for member in archive.infolist():
            if (
                member.compress_type == zipfile.ZIP_STORED
                and member.compress_size == member.file_size
            ):
                stream.seek(member.header_offset)
                name_bytes, extra_bytes = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
                yield (
                    member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes,
                    member.file_size,
                )


def _empty_like(torch: Any, tensor: Any) -> Any:
    return torch.empty(0, dtype=tensor.dtype, device=tensor.device)


def _length_bytes(place: TensorLocation) -> int:
    """From a tensor's first element to its last."""
    last = sum((size - 1) * stride for size, stride in zip(place.shape, place.strides, strict=True))
    return (last + 1) * int(place.tensor.element_size())
