"""What a folder of models holds: Triton's and TF Serving's layout, MLServer's settings, and single files.

    name/config.pbtxt, name/<version>/files     versions are whole numbers; the configuration may be missing
    name/files                                  version 1
    name/model-settings.json                    MLServer; also one for each version in folders below
    name.onnx                                   version 1

All versions are served unless the configuration names a policy, because a version that nobody asks for costs nothing. A spec's URI
ends with a stamp of its files (`file:///models/digits/1#<stamp>`), so that it differs when they do; fetching passes over the stamp.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType
from urllib.parse import quote

from meshserve import errors
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import model
from meshserve.storage import content, mlserver_settings, model_metadata, model_uri, triton_config

ENDINGS = (
    ".onnx",
    ".ort",
    ".pt",
    ".pt2",
    ".pth",
    ".skops",
    ".joblib",
    ".pkl",
    ".pickle",
    ".ubj",
    ".bst",
    ".py",
    *model_uri.ARCHIVES,
)
HEADS: Mapping[str, bytes] = MappingProxyType({".txt": b"tree", ".json": b"learner"})
"""Endings that other files have as well, and what the first bytes of a model's hold."""
HEAD_BYTES = 512
TEXT_BYTES_MAX = 1 << 20
SETTLE_NS = 1_000_000_000
"""Files that changed less than this ago may still be written to."""
SKEW_NS = 10_000_000_000


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """One file or folder of a repository: its models, and what in it can't be served. `is_settling`: it was changed a moment ago."""

    specs: tuple[model.ModelSpec, ...] = ()
    problems: tuple[str, ...] = ()
    is_settling: bool = False


NOTHING = RepositoryEntry()


def names(folder: Path) -> list[str]:
    """The entries to look at. Raises LoadFailed where the folder can't be read."""
    try:
        if (folder / mlserver_settings.FILE).is_file():
            return ["."]
        return sorted(path.name for path in folder.iterdir() if not content.is_hidden(path.name))
    except OSError as error:
        raise errors.LoadFailed(
            f"the repository {folder} can't be read: {error.strerror}"
        ) from None


def scan(folder: Path, pattern: model.ModelSpec, now_ns: int) -> cluster_control.RepositoryScan:
    """All that the folder holds. `pattern` is a spec with what all of its models have in common. Raises LoadFailed as `names` does."""
    look = RepositoryLook(folder, pattern, now_ns)
    return join({name: look.entry(name, NOTHING) for name in names(folder)})


def join(entries: Mapping[str, RepositoryEntry]) -> cluster_control.RepositoryScan:
    """What the entries hold together. Of two with the same name and version the first is served."""
    owners: dict[model.ModelId, str] = {}
    specs: list[model.ModelSpec] = []
    problems: list[str] = []
    for name, entry in sorted(entries.items()):
        problems += entry.problems
        for spec in entry.specs:
            owner = owners.setdefault(spec.id, name)
            if owner == name:
                specs.append(spec)
            else:
                problems.append(f"{name}: model {spec.id} is declared by {owner} already")
    return cluster_control.RepositoryScan(tuple(specs), tuple(problems))


@dataclass(frozen=True, slots=True)
class RepositoryLook:
    """One look at a repository at the time `now_ns`."""

    folder: Path
    pattern: model.ModelSpec
    now_ns: int

    def entry(self, name: str, before: RepositoryEntry) -> RepositoryEntry:
        """The entry as it is now. What is being written is as it was `before`, and not there if it was not."""
        found = _Found(self, name, before)
        try:
            with found.noting(""):
                found.add_all(self.folder / name)
        except _StillWrittenError:
            return dataclasses.replace(before, is_settling=True)
        return RepositoryEntry(tuple(found.specs), tuple(found.problems), found.is_settling)

    def is_settling(self, changed_ns: int) -> bool:
        """Whether what was changed then may still be written to. A time far ahead is another machine's wrong clock."""
        return -SKEW_NS < self.now_ns - changed_ns < SETTLE_NS


class _StillWrittenError(Exception):
    """A description was changed a moment ago."""


class _Found:
    """What a look at one entry has found so far."""

    def __init__(self, look: RepositoryLook, name: str, before: RepositoryEntry) -> None:
        self._look = look
        self._name = name.encode("utf-8", "replace").decode()
        self._before = {spec.id: spec for spec in before.specs}
        self.specs: list[model.ModelSpec] = []
        self.problems: list[str] = []
        self.is_settling = False

    @contextlib.contextmanager
    def noting(self, below: str) -> Iterator[None]:
        """Turns what is wrong with a part of the entry into a problem, and what just went away into another look soon."""
        try:
            yield
        except FileNotFoundError:
            self.is_settling = True
        except (OSError, ValueError, errors.LoadFailed) as error:
            self.problems.append(f"{self._name}{below}: {_words(error)}")

    def add_all(self, path: Path) -> None:
        """All versions of all models of the entry. Raises what reading and understanding it raise."""
        if not path.is_dir():
            if is_model_file(path):
                self._add(
                    model_metadata.ModelDeclaration(name=stem(path.name)),
                    "1",
                    path,
                    content.stamp(path),
                )
            return
        settings = list(_settings(path))
        for each in settings:
            with self.noting("" if each.parent == path else f"/{each.parent.name}"):
                self._add_mlserver(each)
        if not settings:
            self._add_versions(path)

    def _add_mlserver(self, settings: Path) -> None:
        said = mlserver_settings.read(self._read(settings))
        folder = settings.parent
        if model_uri.SCHEME.match(said.uri):
            self._add_spec(
                _spec(
                    self._look.pattern,
                    said,
                    said.name or folder.name,
                    said.version or "1",
                    said.uri,
                )
            )
        else:
            path = folder / said.uri
            said = dataclasses.replace(said, name=said.name or folder.resolve().name)
            self._add(said, said.version or "1", path, content.stamp(path))

    def _add_versions(self, path: Path) -> None:
        configuration = path / triton_config.FILE
        said = (
            triton_config.read(self._read(configuration))
            if configuration.is_file()
            else model_metadata.ModelDeclaration()
        )
        said = dataclasses.replace(said, name=said.name or path.name)
        versions = sorted((each.name for each in _folders(path) if is_version(each.name)), key=int)
        if not versions:
            self._add_unversioned(said, path)
            return
        stamps = {
            version: stamp
            for version in versions
            if (stamp := self._stamp_of_version(path, said.name, version)) is not None
        }
        for version in said.versions.chosen(list(stamps)):
            self._add(said, version, path / version, stamps[version])

    def _add_unversioned(self, said: model_metadata.ModelDeclaration, path: Path) -> None:
        if not any(each.is_file() and each.name != triton_config.FILE for each in _visible(path)):
            self.is_settling = self.is_settling or self._look.is_settling(path.stat().st_mtime_ns)
            raise ValueError(
                "there is neither a folder of a version (a whole number), nor a file of a model, nor model-settings.json"
            )
        self._add(said, "1", path, content.stamp(path))

    def _stamp_of_version(self, path: Path, name: str, version: str) -> content.Stamp | None:
        """The stamp of a version that counts for the policy: one that is being written does only if it was there before."""
        with self.noting(f"/{version}"):
            stamp = content.stamp(path / version)
            if model.ModelId(name, version) in self._before or not self._look.is_settling(
                stamp.touched_ns
            ):
                return stamp
            self.is_settling = True
        return None

    def _add(
        self, said: model_metadata.ModelDeclaration, version: str, path: Path, stamp: content.Stamp
    ) -> None:
        """A model of this node's disk, unless it is being written."""
        if not self._look.is_settling(stamp.touched_ns):
            uri = f"file://{quote(str(path.absolute()))}#{stamp.text[:16]}"
            self._add_spec(_spec(self._look.pattern, said, said.name, version, uri))
            return
        self.is_settling = True
        before = self._before.get(model.ModelId(said.name, version))
        if before is not None:
            self._add_spec(before)

    def _add_spec(self, spec: model.ModelSpec) -> None:
        model_metadata.check_name(spec.id.name)
        self.specs.append(spec)

    def _read(self, path: Path) -> str:
        if self._look.is_settling(path.stat().st_ctime_ns):
            raise _StillWrittenError
        with path.open("rb") as stream:
            text = stream.read(TEXT_BYTES_MAX + 1)
        if len(text) > TEXT_BYTES_MAX:
            raise ValueError(f"{path.name} is bigger than {TEXT_BYTES_MAX} bytes")
        return text.decode()


def is_model_file(path: Path) -> bool:
    """Whether a file that lies directly in a repository is a model, by its ending, and by its first bytes where others have that ending."""
    name = path.name.lower()
    if name.endswith(ENDINGS):
        return True
    sign = HEADS.get(path.suffix.lower())
    if sign is None:
        return False
    with path.open("rb") as stream:
        return sign in stream.read(HEAD_BYTES)


def stem(name: str) -> str:
    """A file's name without its ending."""
    for ending in sorted(model_uri.ARCHIVES, key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return PurePath(name).stem


def is_version(name: str) -> bool:
    """Whether a folder's name is a version's: a whole number, as Triton and TF Serving have it."""
    return name.isascii() and name.isdecimal()


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not content.is_hidden(path.name))


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _settings(folder: Path) -> Iterator[Path]:
    """MLServer's settings in the folder, or in those directly below."""
    if (folder / mlserver_settings.FILE).is_file():
        yield folder / mlserver_settings.FILE
        return
    yield from (
        path / mlserver_settings.FILE
        for path in _folders(folder)
        if (path / mlserver_settings.FILE).is_file()
    )


def _spec(
    pattern: model.ModelSpec,
    said: model_metadata.ModelDeclaration,
    name: str,
    version: str,
    uri: str,
) -> model.ModelSpec:
    return dataclasses.replace(
        pattern,
        id=model.ModelId(name, version),
        uri=uri,
        runtime=said.runtime,
        inputs=said.inputs,
        outputs=said.outputs,
        batching=pattern.batching if said.batching is None else said.batching,
        max_batch_size=said.max_batch_size or pattern.max_batch_size,
        options=said.options,
    )


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
