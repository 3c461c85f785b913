"""Find the model's file in an artifact, by names and first bytes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model

HEAD_BYTES = 4096

DIGESTS_MAX = 1 << 14
"""The number of verified files that are remembered by digest, so that they are read once only."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The form of one kind of model on disk.

    `names` are file names to look for first, `endings` the endings that a file may have. `sniff`
    returns whether a file's content is of this kind. It is called for files without an ending, and
    with `is_strict` for all, if other kinds of files have the same endings.
    """

    names: tuple[str, ...]
    endings: tuple[str, ...]
    sniff: Callable[[Path], bool]
    is_strict: bool = False

    def find(self, path: PurePath) -> Path | None:
        """Return the model's file in a file or folder, or None unless exactly one file fits."""
        path = Path(path)
        if path.is_dir():
            return self._find_in_folder(path)
        return path if path.is_file() and self._fits(path) else None

    def _find_in_folder(self, folder: Path) -> Path | None:
        for name in self.names:
            if (folder / name).is_file() and self._fits(folder / name):
                return folder / name
            # Triton's form of a model of several files: a folder with the name of its main file.
            if (folder / name / name).is_file() and self._fits(folder / name / name):
                return folder / name / name
        fitting = [
            file
            for file in visible_files(folder)
            if file.suffix.lower() in self.endings and self._fits(file)
        ]
        # Of two files it is not clear which one is meant.
        return fitting[0] if len(fitting) == 1 else None

    def _fits(self, file: Path) -> bool:
        if file.suffix.lower() in self.endings:
            return not self.is_strict or self.sniff(file)
        # A suffix with digits, as in `model-1.2`, is a part of the name and no ending.
        return not file.suffix[1:].isalpha() and self.sniff(file)


def visible_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are not hidden, sorted by name."""
    return sorted(
        file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")
    )


def read_head(file: Path, size_bytes: int = HEAD_BYTES) -> bytes:
    """Return the first bytes of a file; none if it can't be read."""
    try:
        with file.open("rb") as stream:
            return stream.read(size_bytes)
    except OSError:
        return b""


def zip_members(file: Path) -> tuple[str, ...]:
    """Return the names in a zip archive; none if it is not a whole one."""
    # zipfile alone would also take a file that merely ends with an archive.
    if read_head(file, 4) != b"PK\x03\x04":
        return ()
    try:
        with zipfile.ZipFile(file) as archive:
            return tuple(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        # Damaged archives raise more than BadZipFile.
        return ()


def chosen_path(spec: model.ModelSpec, artifact: model_runtime.Artifact) -> PurePath:
    """Return the artifact's path, or that of the file in it that the option `file` names.

    Raises LoadFailed if the option names a file outside the artifact, or none.
    """
    name = spec.options.get("file")
    if name is None:
        return artifact.path
    relative = PurePath(str(name))
    # A declaration must not reach other files of the machine.
    if relative.is_absolute() or ".." in relative.parts:
        raise errors.LoadFailed(f"option file: {name!r} must name a file inside the model's folder")
    if Path(artifact.path).is_file() and artifact.path.name == relative.name:
        return artifact.path
    if not Path(artifact.path / relative).is_file():
        raise errors.LoadFailed(
            f"option file: there is no {name!r} in the model's folder; "
            f"there is: {list_names(artifact.path)}"
        )
    return artifact.path / relative


def find_model_file(
    spec: model.ModelSpec, artifact: model_runtime.Artifact, layout: Layout
) -> Path:
    """Return the file to load. Raises LoadFailed, naming what was looked for, if none fits.

    An empty file is a LoadFailed too.
    """
    path = chosen_path(spec, artifact)
    if path != artifact.path or Path(path).is_file():
        return _check_not_empty(Path(path))
    file = layout.find(path)
    if file is None:
        looked_for = " or ".join(
            [*layout.names, *(f"one file *{ending}" for ending in layout.endings)]
        )
        raise errors.LoadFailed(f"the folder has no {looked_for}; there is: {list_names(path)}")
    return _check_not_empty(file)


def _check_not_empty(file: Path) -> Path:
    try:
        size_bytes = file.stat().st_size
    except OSError as error:
        raise errors.LoadFailed(
            f"the model's file {file.name!r} can't be read: {error.strerror}"
        ) from None
    if not size_bytes:
        raise errors.LoadFailed(f"the model's file {file.name!r} is empty")
    return file


def list_names(path: PurePath, count_max: int = 8) -> str:
    """Return the names in a folder for a message, or the file's own name."""
    path = Path(path)
    if not path.is_dir():
        return path.name
    names = sorted(entry.name for entry in path.iterdir())
    shown = ", ".join(names[:count_max]) or "nothing"
    more = len(names) - count_max
    return f"{shown} and {more} more" if more > 0 else shown


def summarize(error: BaseException, prefixes: Iterable[str] = ()) -> str:
    """Return a library's message as one line: the first that is not blank, without the prefixes."""
    lines = [line.strip() for line in errors.text_of(error).splitlines()]
    message = next((line for line in lines if line), type(error).__name__)
    for prefix in prefixes:
        message = message.removeprefix(prefix).strip()
    return message[:400].rstrip(".:")
