"""Move files into and out of the kernel's page cache."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)


def drop(folder: Path) -> None:
    """Write every file under the folder to the disk, and drop its pages.

    Pages that a process maps stay.
    """
    for path in files(folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def cached_share(path: Path) -> float:
    """Return the share of the file that is in the page cache. Raises OSError."""
    size = path.stat().st_size
    if not size:
        return 0.0
    with (
        path.open("rb") as file,
        mmap.mmap(
            file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
        ) as mapped,
    ):
        count = -(-size // mmap.PAGESIZE)
        seen = (ctypes.c_ubyte * count)()
        place = ctypes.c_char.from_buffer(mapped)
        failed = _LIBC.mincore(
            ctypes.c_void_p(ctypes.addressof(place)), ctypes.c_size_t(size), seen
        )
        del place
        if failed:
            raise OSError(ctypes.get_errno(), f"mincore: {path}")
        return sum(page & 1 for page in seen) / count


def files(folder: Path) -> list[Path]:
    """Return every plain file under the folder, or the file itself."""
    return (
        [folder]
        if folder.is_file()
        else [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    )
