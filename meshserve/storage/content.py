"""Digests, stamps and copies of files and folders.

A folder's content is its files without hidden ones and `__pycache__`. Links are followed if they
stay in the folder, in the model's folder around a version's, or in the blobs of Hugging Face's
cache: whoever may write a model must not read the machine by it. Its
digest is the SHA-256 over a line for each file, sorted by name: the relative name, a null
character, the file's digest in hex.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO

from meshserve import errors

CHUNK_BYTES = 1 << 20
FILES_MAX = 100_000
DEPTH_MAX = 32
HUB_SNAPSHOTS, HUB_BLOBS = "snapshots", "blobs"
"""Folders of Hugging Face's cache: a snapshot's files are links to blobs."""
FICLONE = 0x40049409
"""Linux's ioctl by which a file shares another's blocks until either is written."""

SEALED_NS = 946_684_800 * 10**9
"""The modification time of the cache's files: 2000-01-01, which no program writes by itself.

Whoever writes to such a file sets another one, so its content need not be hashed to see that.
"""

Listed = Sequence[tuple[str, os.stat_result]]
"""Files by their relative names, "" for a single one, with their stats."""

Bounds = tuple[tuple[str, ...], ...]
"""Folders, each with a slash at its end: a file must lie in one of each tuple."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """The state of a file or folder by its metadata: equal texts mean unchanged content.

    `changed_ns` is the newest modification time in it; `touched_ns` the newest change of any kind,
    which no program can set back.
    """

    text: str
    size_bytes: int
    files: int
    changed_ns: int
    touched_ns: int


def is_hidden(name: str) -> bool:
    """Return whether a file of this name is ignored: hidden, or Python's cache."""
    return name.startswith(".") or name == "__pycache__"


def files(
    path: Path, files_max: int = FILES_MAX, *, may_leave: bool = False
) -> list[tuple[str, os.stat_result]]:
    """Return every file's relative name with its stat; a single file has the name "".

    Raises LoadFailed if there are no files or too many, if one is a device or a pipe, or a link out
    of the folder unless it `may_leave`. Lets the system's OSError pass.
    """
    top = path.stat()
    listed = []
    for name, stat in (
        _Walk(path, may_leave=may_leave).below() if S_ISDIR(top.st_mode) else [("", top)]
    ):
        if not S_ISREG(stat.st_mode):
            raise errors.LoadFailed(f"{path / name} is neither a file nor a folder")
        listed.append((name, stat))
        if len(listed) > files_max:
            raise errors.LoadFailed(f"{path} holds more than {files_max} files")
    if not listed:
        raise errors.LoadFailed(f"{path} holds no files")
    return listed


def _link_roots(folder: Path) -> tuple[str, ...]:
    """Return the folders that links in a model's folder may lead into."""
    real = folder.resolve()
    # Versions may share files by links. Both names count, as a link `1` may lead to any folder.
    around = [real.parent] if folder.name.isdecimal() and real.name.isdecimal() else []
    blobs = [above.parent / HUB_BLOBS for above in real.parents if above.name == HUB_SNAPSHOTS]
    return tuple(f"{root}/" for root in (real, *around, *blobs))


class _Walk:
    """A walk through a folder, whose links must not leave it."""

    def __init__(self, folder: Path, *, may_leave: bool) -> None:
        self._folder = folder
        self._root = str(folder)
        self._may_leave = may_leave
        self._roots: tuple[str, ...] = ()

    def below(self, below: str = "", depth: int = 0) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the relative names and stats of the files. Raises LoadFailed."""
        if depth > DEPTH_MAX:
            raise errors.LoadFailed(f"{self._root} has folders that are more than {DEPTH_MAX} deep")
        # Listed whole before the walk goes down, or each depth would keep a descriptor open.
        with os.scandir(f"{self._root}/{below}") as entries:
            visible = [entry for entry in entries if not is_hidden(entry.name)]
        for entry in visible:
            if not self._may_leave and entry.is_symlink():
                self._check_link(entry.path)
            if entry.is_dir():
                yield from self.below(f"{below}{entry.name}/", depth + 1)
            else:
                yield f"{below}{entry.name}", entry.stat()

    def _check_link(self, link: str) -> None:
        # Most folders have no links, and need no resolving.
        self._roots = self._roots or _link_roots(self._folder)
        target = os.path.realpath(link)
        if not f"{target}/".startswith(self._roots):
            raise errors.LoadFailed(
                f"{link} is a link to {target}, outside of the model's folder: copy the file there"
            )


def stamp(path: Path) -> Stamp:
    """Return the stamp of a file or folder. Raises as `files` does."""
    # The system lists a folder in any order, and the stamp must not change with that.
    listed = sorted(files(path))
    # With the time of the last change of any kind: programs set modification times back.
    texts = (
        f"{name}\0{stat.st_ino}.{stat.st_size}.{stat.st_mtime_ns}.{stat.st_ctime_ns}\n"
        for name, stat in listed
    )
    return Stamp(
        text=_text_hex("".join(texts))[:32],
        size_bytes=sum(stat.st_size for _, stat in listed),
        files=len(listed),
        changed_ns=max(stat.st_mtime_ns for _, stat in listed),
        touched_ns=max(max(stat.st_ctime_ns, stat.st_mtime_ns) for _, stat in listed),
    )


def count_bytes(path: Path) -> int:
    """Return the sum of the files' sizes. Raises as `files` does."""
    return sum(stat.st_size for _, stat in files(path))


def seal(path: Path, listed: Listed) -> None:
    """Set the modification times of the listed files to `SEALED_NS`."""
    for name, stat in listed:
        os.utime(path / name if name else path, ns=(stat.st_atime_ns, SEALED_NS))


def is_sealed(listed: Listed) -> bool:
    """Return whether nobody has written to these files since they were sealed."""
    return all(stat.st_mtime_ns == SEALED_NS for _, stat in listed)


def is_inside(path: str, folder: str) -> bool:
    """Return whether the path, links resolved, is the folder or lies below it."""
    real_folder = os.path.realpath(folder).rstrip("/")
    return f"{os.path.realpath(path)}/".startswith(f"{real_folder}/")


def digest(path: Path, file_root: str = "") -> str:
    """Return the content's `sha256:<hex>`.

    Raises as `files` does, and LoadFailed for a file outside of the folder `file_root`.
    """
    bounds = _roots(file_root)
    hexes = {name: _file_hex(path / name if name else path, bounds) for name, _ in files(path)}
    return f"sha256:{hexes['']}" if "" in hexes else tree_digest(hexes)


def tree_digest(hexes: Mapping[str, str]) -> str:
    """Return a folder's digest from its files' hex digests by relative name."""
    lines = (f"{name}\0{hexes[name]}\n" for name in sorted(hexes))
    return f"sha256:{_text_hex(''.join(lines))}"


def copy(source: Path, target: Path, file_root: str = "") -> str:
    """Copy a file to `target`, or a folder's content into the folder `target`, read-only.

    Returns the digest of exactly what was written. Raises as `files` does, and LoadFailed for a
    file outside of the folder `file_root`.
    """
    hexes = {}
    listed = files(source)
    # A single file may be a link to anywhere in the file root, as the folder itself may.
    roots = () if listed[0][0] == "" else _link_roots(source)
    bounds = (*_roots(file_root), *([roots] if roots else []))
    for name, _ in listed:
        if "/" in name:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
        hexes[name] = _copy_file(source / name, target / name, bounds)
    return f"sha256:{hexes['']}" if "" in hexes else tree_digest(hexes)


def _text_hex(text: str) -> str:
    # Names of files need not be UTF-8.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _roots(file_root: str) -> Bounds:
    return ((f"{os.path.realpath(file_root).rstrip('/')}/",),) if file_root else ()


def _file_hex(path: Path, bounds: Bounds = ()) -> str:
    # By descriptor: a file object and its buffer take four times as long as a small file's hash.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check_opened(descriptor, path, bounds)
        sha256 = hashlib.sha256()
        # `os.read` first allocates all that it is asked for: too much for a small file.
        chunk_bytes = min(os.fstat(descriptor).st_size + 1, CHUNK_BYTES)
        while chunk := os.read(descriptor, chunk_bytes):
            sha256.update(chunk)
    finally:
        os.close(descriptor)
    return sha256.hexdigest()


def _copy_file(source: Path, target: Path, bounds: Bounds) -> str:
    # File systems that share blocks (XFS, Btrfs) clone the file without copying it.
    with source.open("rb") as reading, target.open("xb") as writing:
        _check_opened(reading.fileno(), source, bounds)
        if not _is_cloned(reading, writing):
            return write(reading, writing)
        os.fchmod(writing.fileno(), 0o400)
    # Of the copy, because the original may have changed since.
    return _file_hex(target)


def _check_opened(descriptor: int, path: Path, bounds: Bounds) -> None:
    """Raise LoadFailed if an open file lies elsewhere: it became a link after it was listed."""
    # Resolving paths took 80 of the 200 µs of a tiny file's copy, which needs none.
    if not bounds:
        return
    real = os.path.realpath(f"/proc/self/fd/{descriptor}")
    if not all(real.startswith(roots) for roots in bounds):
        raise errors.LoadFailed(f"{path} is a link out of the model's folder")


def _is_cloned(reading: IO[bytes], writing: IO[bytes]) -> bool:
    try:
        fcntl.ioctl(writing.fileno(), FICLONE, reading.fileno())
    except OSError:
        return False
    return True


def write(reading: IO[bytes], writing: IO[bytes]) -> str:
    """Write all that can be read to a file, make it read-only, and return its hex digest."""
    hashing = hashlib.sha256()
    size_bytes = 0
    while chunk := reading.read(CHUNK_BYTES):
        hashing.update(chunk)
        size_bytes += writing.write(chunk)
    finish(writing, size_bytes)
    return hashing.hexdigest()


def finish(writing: IO[bytes], size_bytes: int) -> None:
    """Make a written file read-only, and flush it to disk if it is big."""
    writing.flush()
    os.fchmod(writing.fileno(), 0o400)
    # Small files need no flush: entries are checked by size, and a truncated one is rewritten.
    if size_bytes >= CHUNK_BYTES:
        os.fsync(writing.fileno())
