"""Which file of an artifact is the model, judged by names and first bytes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model

HEAD_BYTES = 4096

DIGESTS_MAX = 1 << 14
"""How many files found sound are remembered by their digest, so that a model that comes back is not read twice."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How one kind of model lies on disk: the names it goes by, the endings it may have, and what its first bytes say.

    `sniff` answers whether a file's content is of this kind; a file with a known ending must pass it too where `is_strict`
    (endings that other files have as well). A file without any ending is judged by `sniff` alone.
    """

    names: tuple[str, ...]
    endings: tuple[str, ...]
    sniff: Callable[[Path], bool]
    is_strict: bool = False

    def find(self, path: PurePath) -> Path | None:
        """The model's file in an artifact that is a file or a folder, None if there is no one file of this kind."""
        place = Path(path)
        if place.is_dir():
            return self._in_folder(place)
        return place if place.is_file() and self._fits(place) else None

    def _in_folder(self, folder: Path) -> Path | None:
        for name in self.names:
            if (folder / name).is_file() and self._fits(folder / name):
                return folder / name
        fitting = [
            entry
            for entry in visible(folder)
            if entry.suffix.lower() in self.endings and self._fits(entry)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _fits(self, file: Path) -> bool:
        if file.suffix.lower() in self.endings:
            return not self.is_strict or self.sniff(file)
        return not file.suffix[1:].isalpha() and self.sniff(file)


def visible(folder: Path) -> list[Path]:
    """The files of a folder that are not hidden, by name."""
    return sorted(
        entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")
    )


def head(file: Path, size_bytes: int = HEAD_BYTES) -> bytes:
    """The first bytes of a file; none if it can't be read."""
    try:
        with file.open("rb") as stream:
            return stream.read(size_bytes)
    except OSError:
        return b""


def members(file: Path) -> tuple[str, ...]:
    """The names in a zip archive; none if it is not a whole one."""
    if head(file, 4) != b"PK\x03\x04":
        return ()
    try:
        with zipfile.ZipFile(file) as archive:
            return tuple(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return ()


def named_by(spec: model.ModelSpec, artifact: model_runtime.Artifact) -> PurePath:
    """The artifact's path, or the file in it that the option `file` names. Raises LoadFailed if that leads out or nowhere."""
    name = spec.options.get("file")
    if name is None:
        return artifact.path
    relative = PurePath(str(name))
    if relative.is_absolute() or ".." in relative.parts:
        raise errors.LoadFailed(f"option file: {name!r} must name a file inside the model's folder")
    if Path(artifact.path).is_file() and artifact.path.name == relative.name:
        return artifact.path
    if not Path(artifact.path / relative).is_file():
        raise errors.LoadFailed(
            f"option file: there is no {name!r} in the model's folder; there is: {listing(artifact.path)}"
        )
    return artifact.path / relative


def require(spec: model.ModelSpec, artifact: model_runtime.Artifact, layout: Layout) -> Path:
    """The file to load. Raises LoadFailed, saying what was looked for, if there is none or it is empty."""
    path = named_by(spec, artifact)
    if path != artifact.path or Path(path).is_file():
        return _not_empty(Path(path))
    found = layout.find(path)
    if found is None:
        looked_for = " or ".join(
            [*layout.names, *(f"one file *{ending}" for ending in layout.endings)]
        )
        raise errors.LoadFailed(f"the folder has no {looked_for}; there is: {listing(path)}")
    return _not_empty(found)


def _not_empty(file: Path) -> Path:
    try:
        size_bytes = file.stat().st_size
    except OSError as error:
        raise errors.LoadFailed(
            f"the model's file {file.name!r} can't be read: {error.strerror}"
        ) from None
    if not size_bytes:
        raise errors.LoadFailed(f"the model's file {file.name!r} is empty")
    return file


def listing(path: PurePath, count_max: int = 8) -> str:
    """Names in a folder for a message, or the file's own name."""
    place = Path(path)
    if not place.is_dir():
        return place.name
    names = sorted(entry.name for entry in place.iterdir())
    return _joined(names[:count_max], len(names) - count_max)


def _joined(names: Sequence[str], left: int) -> str:
    shown = ", ".join(names) or "nothing"
    return f"{shown} and {left} more" if left > 0 else shown


def first_line(error: BaseException, words_from: Iterable[str] = ()) -> str:
    """A library's message as one sentence: its first line that says something, without the given prefixes and without trailing dots."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = next((line for line in lines if line), type(error).__name__)
    for prefix in words_from:
        said = said.removeprefix(prefix).strip()
    return said[:400].rstrip(".:")
