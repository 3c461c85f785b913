"""`meshserve logs`: read the log files of the mesh that was started from this machine."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from meshserve import config, errors
from meshserve.cli import log_view
from meshserve.launch import mesh_file

POLL_S = 0.25
OLD_FILES = 3


def logs(
    who: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL|WORKER|LLM|gateway|controller]",
            help="Whose lines. Default: those of all.",
        ),
    ] = "",
    follows: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")
    ] = False,
    since: Annotated[
        str, typer.Option(metavar="30s|10m|2h|1d|TIME", help="Only lines since then.")
    ] = "",
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="The last so many, without --since.")
    ] = 200,
) -> None:
    """Print what a model, a worker, an LLM, the gateway or the controller has logged here."""
    folder = mesh_file.logs_dir(config.home())
    if not folder.is_dir():
        _refuse(folder, who)
    since_s = log_view.parse_since(since, time.time()) if since else 0.0
    reader = LogReader(folder, who)
    shown = _in_order(entry for entry in reader.read_old(since_s) if entry.at_s >= since_s)
    _print(shown if since else shown[len(shown) - min(lines, len(shown)) :])
    if not shown and not follows:
        _refuse(folder, who)
    try:
        while follows:
            time.sleep(POLL_S)
            _print(_in_order(reader.read_new()))
    except KeyboardInterrupt:
        return


def _refuse(folder: Path, who: str) -> NoReturn:
    """Raise Unavailable with what can be read instead."""
    if not folder.is_dir():
        raise errors.Unavailable(f"no mesh has logged here: there is no folder {folder}")
    names = ", ".join(sorted(path.stem for path in folder.glob("*.log")))
    telling = f" of {who!r}" if who else ""
    raise errors.Unavailable(f"no line in {folder} tells{telling}; there are logs of: {names}")


def _in_order(entries: Iterable[log_view.LogEntry]) -> list[log_view.LogEntry]:
    return sorted(entries, key=lambda entry: entry.at_s)


def _print(entries: list[log_view.LogEntry]) -> None:
    for entry in entries:
        # A line of JSON stays one, for programs that read it.
        source = "" if entry.text.startswith("{") else f"{entry.source:<12} "
        sys.stdout.write(f"{source}{entry.text}\n")
    sys.stdout.flush()


class LogReader:
    """Reads the log files of one folder, and then what is appended to them."""

    def __init__(self, folder: Path, who: str) -> None:
        """With `who` only entries are read of its own files, or that tell of it."""
        self._folder = folder
        self._who = who
        self._positions: collections.defaultdict[Path, int] = collections.defaultdict(int)
        self._last_s: dict[Path, float] = {}

    def read_old(self, since_s: float) -> Iterator[log_view.LogEntry]:
        """Yield the entries of all files until now; of older ones if they reach to `since_s`."""
        for path in sorted(self._folder.glob("*.log")):
            for number in range(OLD_FILES, 0, -1):
                old = path.with_name(f"{path.name}.{number}")
                # Without a time the file before the last is enough.
                if old.exists() and (old.stat().st_mtime >= since_s if since_s else number == 1):
                    yield from self._kept(path, old.read_bytes())
        yield from self.read_new()

    def read_new(self) -> Iterator[log_view.LogEntry]:
        """Yield the entries that were appended since the last call."""
        # Ray's are copied there when a mesh has ended, and of use to few.
        rays = self._folder.glob("ray/*") if self._who == "ray" else ()
        for path in sorted((*self._folder.glob("*.log"), *rays)):
            with path.open("rb") as log:
                size_bytes = log.seek(0, 2)
                # A file that grew too long has been emptied.
                begin = self._positions[path] if self._positions[path] <= size_bytes else 0
                log.seek(begin)
                data = log.read()
            # A line that has not ended is read again when it has.
            whole = data[: data.rfind(b"\n") + 1]
            self._positions[path] = begin + len(whole)
            yield from self._kept(path, whole)

    def _kept(self, path: Path, data: bytes) -> Iterator[log_view.LogEntry]:
        has_all = (
            not self._who or log_view.is_log_of(path.stem, self._who) or path.parent != self._folder
        )
        lines = data.decode(errors="replace").splitlines()
        for entry in log_view.entries(path.stem, lines, self._last_s.get(path, 0.0)):
            self._last_s[path] = entry.at_s
            # What `up` prints for people names models in commands to copy.
            tells = path.stem != "up" and log_view.tells_of(entry, self._who)
            if entry.text and (has_all or tells):
                yield entry
