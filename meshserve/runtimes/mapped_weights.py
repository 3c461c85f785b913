"""Weights that stay in their file: a module's tensors point into a mapping of the archive.

See docs/decisions/0082-weights-are-mapped.md for why, and for what it costs.
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
"""Smaller files are copied, because a process may have only some ten thousand mappings."""

ALIGNED_BYTES = 64
"""The alignment of torch's allocator and archives.

Kernels may choose their way by it, and other answers would then differ in their last bits.
"""

_LOCAL_HEADER = struct.Struct("<26xHH")
"""A zip member's local header: at its end, the lengths of the name and the extra field after it.

Source: APPNOTE.TXT of the zip format, section 4.3.7.
"""


@dataclass(frozen=True, slots=True)
class _ArtifactFile:
    """A file of an artifact: its path in the artifact, and its length."""

    path: PurePath
    size_bytes: int

    def map(self, torch: Any, artifact: model_runtime.Artifact) -> Any:
        """Return the whole file as a torch storage. Raises LoadFailed if its length has changed."""
        path = Path(artifact.path, self.path)
        try:
            # To read a mapping beyond the end of its file ends the process by SIGBUS.
            if path.stat().st_size != self.size_bytes:
                raise errors.LoadFailed(f"{path.name} is not the file that it was")
            # Not shared: what a module writes to its weights never reaches the file.
            return torch.UntypedStorage.from_file(str(path), shared=False, nbytes=self.size_bytes)
        except (OSError, RuntimeError) as error:
            raise errors.LoadFailed(f"{path.name} can't be mapped: {error}") from None


@dataclass(frozen=True, slots=True)
class TensorLocation:
    """A tensor of a module, and where its values are in the file.

    `first` is the offset of its first element, counted in elements; `strides` count elements too.
    """

    tensor: Any
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class MappedTensors:
    """A module's tensors that lie in a file. `is_all`: the module has no others."""

    def __init__(
        self,
        torch: Any,
        locations: Sequence[TensorLocation],
        file: _ArtifactFile,
        *,
        is_all: bool,
    ) -> None:
        self.is_all = is_all
        # Tensors that share their first element share their values.
        lengths = {location.first: _length_bytes(location) for location in locations}
        self.mapped_bytes = sum(lengths.values())
        self._torch = torch
        self._locations = tuple(locations)
        self._file = file

    def attach(self, artifact: model_runtime.Artifact) -> None:
        """Point the tensors into the artifact's file. Raises LoadFailed if it has changed."""
        mapping = self._file.map(self._torch, artifact)
        for location in self._locations:
            location.tensor.data = _empty_like(self._torch, location.tensor).set_(
                mapping, location.first, location.shape, location.strides
            )

    @property
    def tensors(self) -> list[Any]:
        """The tensors that lie in the file."""
        return [location.tensor for location in self._locations]


def tensors_of(module: Any) -> list[Any]:
    """Return a module's parameters and buffers that have any bytes."""
    return [
        tensor
        for tensor in (*module.parameters(), *module.buffers())
        if tensor.untyped_storage().nbytes()
    ]


def free(torch: Any, tensors: Sequence[Any]) -> None:
    """Empty tensors in place, which frees their memory even if they are still referenced."""
    # Modules are full of reference cycles, and Python's collector comes late.
    for tensor in tensors:
        tensor.data = _empty_like(torch, tensor)


def map_file(torch: Any, artifact: model_runtime.Artifact, path: Path) -> MappedFile | None:
    """Map a file of the artifact; None if that is no gain or not safe. Raises LoadFailed."""
    file = _ArtifactFile(path.relative_to(artifact.path), path.stat().st_size)
    # A user's own file may be truncated while it is mapped, which would end the process.
    if file.size_bytes < FILE_BYTES_MIN or not artifact.is_cached:
        return None
    return MappedFile(torch, file, file.map(torch, artifact), _stored_members(path))


class MappedFile:
    """A mapped archive. `stored` are offset and length of its uncompressed members, in bytes."""

    def __init__(
        self, torch: Any, file: _ArtifactFile, mapping: Any, stored: Iterable[tuple[int, int]]
    ) -> None:
        self._torch = torch
        self._file = file
        self._mapping = mapping
        self._stored = frozenset(
            (start, length_bytes)
            for start, length_bytes in stored
            if not start % ALIGNED_BYTES and start + length_bytes <= file.size_bytes
        )

    def member(self, start: int, length_bytes: int) -> Any | None:
        """Return a member as a torch storage; None if it is compressed or not aligned."""
        if (start, length_bytes) not in self._stored:
            return None
        # A slice of a storage shares its memory: nothing is copied.
        return self._mapping[start : start + length_bytes]

    def weights(self, module: Any, artifact: model_runtime.Artifact) -> MappedTensors | None:
        """Point the module's tensors into the file, where their bytes are found in it.

        Returns None if none are.
        """
        tensors = tensors_of(module)
        search = _Search(self._torch, self._mapping, sorted(self._stored))
        locations = [
            location for tensor in tensors if (location := search.locate(tensor)) is not None
        ]
        if not locations:
            return None
        is_all = len(locations) == len(tensors)
        weights = MappedTensors(self._torch, locations, self._file, is_all=is_all)
        weights.attach(artifact)
        return weights


class _Search:
    """Finds tensors' bytes in a mapped file.

    A reader that copies does not say where bytes came from, so they are compared: whatever the
    format, a tensor's values are what was read. No two storages get the same location, because a
    module may write to one of them.
    """

    def __init__(self, torch: Any, mapping: Any, stored: Iterable[tuple[int, int]]) -> None:
        self._torch = torch
        self._bytes = torch.empty(0, dtype=torch.uint8).set_(mapping)
        self._starts: dict[int, int | None] = {}
        self._free: dict[int, list[int]] = {}
        for start, length_bytes in stored:
            self._free.setdefault(length_bytes, []).append(start)

    def locate(self, tensor: Any) -> TensorLocation | None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address not in self._starts:
            self._starts[address] = self._find(storage, address - self._bytes.data_ptr())
        start = self._starts[address]
        if start is None:
            return None
        # No remainder is lost: members start at multiples of ALIGNED_BYTES.
        first = start // tensor.element_size() + tensor.storage_offset()
        return TensorLocation(tensor, first, tuple(tensor.shape), tuple(tensor.stride()))

    def _find(self, storage: Any, distance: int) -> int | None:
        """Return the offset in the file at which the storage lies already, or has equal bytes."""
        starts = self._free.get(storage.nbytes(), [])
        if distance in starts:
            starts.remove(distance)
            return distance
        values = self._torch.empty(0, dtype=self._torch.uint8).set_(storage)
        for start in starts:
            if self._is_same(values, self._bytes[start : start + storage.nbytes()]):
                starts.remove(start)
                return start
        return None

    def _is_same(self, left: Any, right: Any) -> bool:
        # Eight bytes at a time take a quarter of the time.
        words = len(left) // 8 * 8
        heads = (part[:words].view(self._torch.int64) for part in (left, right))
        return bool(self._torch.equal(*heads) and self._torch.equal(left[words:], right[words:]))


def _stored_members(file: Path) -> Iterator[tuple[int, int]]:
    """Yield the offset and the length of each uncompressed member's bytes."""
    with zipfile.ZipFile(file) as archive, file.open("rb") as stream:
        for member in archive.infolist():
            if (
                member.compress_type == zipfile.ZIP_STORED
                and member.compress_size == member.file_size
            ):
                stream.seek(member.header_offset)
                # torch pads the local header, to align tensors; the directory lacks that length.
                name_bytes, extra_bytes = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
                start = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
                yield start, member.file_size


def _empty_like(torch: Any, tensor: Any) -> Any:
    return torch.empty(0, dtype=tensor.dtype, device=tensor.device)


def _length_bytes(location: TensorLocation) -> int:
    """Return the length from a tensor's first element to its last."""
    last = sum(
        (size - 1) * stride for size, stride in zip(location.shape, location.strides, strict=True)
    )
    return (last + 1) * int(location.tensor.element_size())
