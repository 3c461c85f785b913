"""Judge whether a file or folder is still being written, so that no half of it is served.

What is judged are all files of a folder, hidden ones too: rsync writes `.model.onnx.Xy12ab` beside
the file that it will replace, and the files that it has replaced already have new content.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from meshserve.storage import content

SETTLE_NS = 1_000_000_000
"""What was changed less than this ago may still be written to."""
SKEW_NS = 10_000_000_000
"""A time further ahead than this comes from another machine's wrong clock."""
TEMPORARY_NS = 10_000_000_000
"""A transfer that pauses this long, and has its temporary file not open, was given up."""
OPEN_NS = 60_000_000_000
"""A file may be open for writing for ever, by a program that writes no more to it."""
HIDDEN_MAX = 1000
"""Files in hidden folders that are looked at: such a folder may be git's database."""
F_SETSIG = 10
"""Linux's command that chooses the signal by which the holder of a lease is asked for it."""

# rsync and mkstemp (`.NAME.Xy12ab`), browsers, download managers, WinSCP and lftp.
TEMPORARY = re.compile(
    r"(\..+\.[A-Za-z0-9_]{6}|.+\.(part|partial|filepart|tmp|temp|crdownload|download))",
    re.IGNORECASE,
)


def is_recent(changed_ns: int, now_ns: int, within_ns: int = SETTLE_NS) -> bool:
    """Return whether that time, in nanoseconds since the epoch, is less than `within_ns` ago."""
    return -SKEW_NS < now_ns - changed_ns < within_ns


def is_being_written(path: Path, now_ns: int, settle_ns: int = SETTLE_NS) -> bool:
    """Return whether somebody writes to the file or folder, or did less than `settle_ns` ago.

    A file that is open for writing counts for `OPEN_NS` after its last change, the temporary file
    of a transfer for `TEMPORARY_NS`. Raises as `content.files` does.
    """
    for file, stat in itertools.chain(_visible(path), _hidden(path)):
        # A folder's change of mode or place is no change of what is in it.
        ctime_ns = 0 if S_ISDIR(stat.st_mode) else stat.st_ctime_ns
        changed_ns = max(stat.st_mtime_ns, ctime_ns)
        if is_recent(changed_ns, now_ns, settle_ns):
            return True
        is_temporary = TEMPORARY.fullmatch(Path(file).name) is not None
        if is_temporary and is_recent(changed_ns, now_ns, TEMPORARY_NS):
            return True
        if (
            S_ISREG(stat.st_mode)
            and is_recent(changed_ns, now_ns, OPEN_NS)
            and is_open_for_writing(file)
        ):
            return True
    return False


def is_open_for_writing(file: str) -> bool:
    """Return whether any process has the file open for writing; False if that can't be known.

    It can be known of local file systems, for files of the same user or by root: the kernel gives
    no lease for reading on a file that is open for writing (fcntl(2), "Leases").
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # Whoever opens the file while the lease lasts makes the kernel send a signal, which would
        # be SIGIO and end this process; SIGURG is ignored unless somebody handles it.
        fcntl.fcntl(descriptor, F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _visible(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path and stat of each file of the content; links are followed."""
    for name, stat in content.files(path):
        yield (f"{path}/{name}" if name else str(path)), stat


def _hidden(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the folder itself, the folders in it, and the files that are no content."""
    if not path.is_dir():
        return
    left = HIDDEN_MAX
    for folder, _, names in os.walk(path):
        with contextlib.suppress(FileNotFoundError):
            yield folder, os.lstat(folder)
        below = os.path.relpath(folder, path)
        is_content = not any(map(content.is_hidden, Path(below).parts))
        for name in names:
            if is_content and not content.is_hidden(name):
                continue
            left -= 1
            if left < 0:
                return
            # A transfer may end, and rename its file, at any moment.
            with contextlib.suppress(FileNotFoundError):
                yield f"{folder}/{name}", os.lstat(f"{folder}/{name}")
