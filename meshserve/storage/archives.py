"""Unpacks archives safely: plain files only, into one folder, within limits.

Hidden members are left out, as everywhere. An archive that holds a single folder is taken as that
folder.
"""

from __future__ import annotations

import errno
import functools
import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from meshserve import errors
from meshserve.storage import content

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
"""System errors of the disk. Others are the archive's, as zipfile seeks where its headers lead."""
HEADER_BYTES_MAX = 16 << 20
MACOS = "__MACOSX"


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """One member of an archive by its headers.

    `is_plain`: it is a file or a folder, not a link, a device or encrypted. `open` opens its
    content, which may be None.
    """

    name: str
    is_folder: bool
    is_plain: bool
    size_bytes: int
    open: Callable[[], IO[bytes] | None]


def unpack(
    archive: Path, folder: Path, size_bytes_max: int, files_max: int = content.FILES_MAX
) -> Path:
    """Unpack into `folder`, which must not exist, and return it, or the only folder in it.

    Raises LoadFailed with what is wrong: the archive is broken, too big, or has links or devices.
    """
    folder.mkdir()
    try:
        members = (
            _zip_members(archive)
            if archive.name.lower().endswith(".zip")
            else _tar_members(archive)
        )
        _write_all(members, folder, size_bytes_max, files_max)
    except errors.LoadFailed:
        raise
    except Exception as error:  # the libraries may raise anything for hostile bytes
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise errors.LoadFailed(
            f"it can't be read as an archive: {str(error) or type(error).__name__}"
        ) from None
    return _inner(folder)


def _inner(folder: Path) -> Path:
    inside = list(folder.iterdir())
    if not inside:
        raise errors.LoadFailed("it holds no files")
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def relative(name: str) -> PurePosixPath:
    """Return a member's path in the folder. Raises LoadFailed for a name that leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise errors.LoadFailed(f"the name {name!r} leads out of the model's folder")
    if len(path.parts) > content.DEPTH_MAX:
        raise errors.LoadFailed(f"it has folders that are more than {content.DEPTH_MAX} deep")
    return path


def _write_all(
    members: Iterator[ArchiveMember], folder: Path, size_bytes_max: int, files_max: int
) -> None:
    left_bytes = size_bytes_max
    for count, member in enumerate(members, start=1):
        if count > files_max:
            raise errors.LoadFailed(f"it holds more than {files_max} files")
        # `./`, which is the folder itself.
        if member.is_folder and PurePosixPath(member.name) == PurePosixPath():
            continue
        path = relative(member.name)
        if not member.is_plain:
            raise errors.LoadFailed(
                f"{member.name!r} is a link, a device or encrypted; "
                "only plain files and folders are unpacked"
            )
        # Members that are left out count too: those of a tar.gz are decompressed to be passed.
        left_bytes -= member.size_bytes
        if left_bytes < 0:
            raise errors.LoadFailed(
                f"its content is bigger than the limit of {size_bytes_max} bytes"
            )
        if not member.is_folder and not any(
            content.is_hidden(part) or part == MACOS for part in path.parts
        ):
            _write(member, folder / path)


def _write(member: ArchiveMember, target: Path) -> None:
    # zipfile and tarfile read no more than the header says.
    reading = member.open()
    if reading is None:
        raise errors.LoadFailed(f"{member.name!r} has no content")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Never over an earlier member: which of the two is meant can't be known.
        with reading, target.open("xb") as writing:
            content.write(reading, writing)
    except (FileExistsError, NotADirectoryError):
        raise errors.LoadFailed(
            f"{member.name!r} is there twice, or both a file and a folder"
        ) from None


def _zip_members(archive: Path) -> Iterator[ArchiveMember]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            # No kind comes from programs for Windows; the first flag means encrypted (APPNOTE.TXT,
            # 4.4.4).
            is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR) and not member.flag_bits & 1
            yield ArchiveMember(
                member.filename,
                member.is_dir(),
                is_plain,
                member.file_size,
                functools.partial(opened.open, member),
            )


def _tar_members(archive: Path) -> Iterator[ArchiveMember]:
    # Decompressed here: if tarfile did it, `_LimitedReads` would not see its reads of headers.
    with (
        archive.open("rb") as raw,
        _plain(archive, raw) as stream,
        tarfile.open(fileobj=_LimitedReads(stream), mode="r:") as opened,
    ):
        for member in opened:
            is_plain = member.isreg() or member.isdir()
            yield ArchiveMember(
                member.name,
                member.isdir(),
                is_plain,
                member.size,
                functools.partial(opened.extractfile, member),
            )


def _plain(archive: Path, raw: IO[bytes]) -> IO[bytes]:
    return (
        cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
        if archive.name.lower().endswith("gz")
        else raw
    )


class _LimitedReads(io.RawIOBase):
    """A stream without huge reads: tarfile reads headers into memory whole, however long."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        # A negative size would read all that there is.
        if not 0 <= size <= HEADER_BYTES_MAX:
            raise errors.LoadFailed(f"it has a header of more than {HEADER_BYTES_MAX} bytes")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()
