"""Scans a folder of models in the layouts of Triton, TF Serving and MLServer, or of single files.

    name/config.pbtxt, name/<version>/files     whole numbers; the configuration may be missing
    name/files                                  version 1
    name/model-settings.json                    MLServer; also one for each version in folders below
    name.onnx                                   version 1

All versions are served unless the configuration has a policy, because a version without requests
costs nothing. A spec's URI ends with a stamp of its files (`file:///models/digits/1#<stamp>`), so
that it changes with them; storage ignores the stamp.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from meshserve import errors
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import model
from meshserve.storage import (
    content,
    mlserver_settings,
    model_metadata,
    model_uri,
    repository_names,
    settling,
    triton_config,
)

TEXT_BYTES_MAX = 1 << 20
SETTINGS_DEPTH_MAX = 8
WHOLE_NS = 0
"""The time of a scan that takes everything as written to its end, because somebody says so."""


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """One file or folder of a repository: its models, and why others in it can't be served.

    `is_settling`: it changed a moment ago, and must be scanned again. `is_broken`: a description
    can't be read, so `specs` has what was served before.
    """

    specs: tuple[model.ModelSpec, ...] = ()
    problems: tuple[str, ...] = ()
    is_settling: bool = False
    is_broken: bool = False


NOTHING = RepositoryEntry()


def names(folder: Path) -> list[str]:
    """Return the names of the entries to scan. Raises LoadFailed if the folder can't be read."""
    try:
        if (folder / mlserver_settings.FILE).is_file():
            return ["."]
        return sorted(path.name for path in folder.iterdir() if not content.is_hidden(path.name))
    except OSError as error:
        raise errors.LoadFailed(
            f"the repository {folder} can't be read: {error.strerror}"
        ) from None


def scan(folder: Path, pattern: model.ModelSpec, now_ns: int) -> cluster_control.RepositoryScan:
    """Return all that the folder holds. Raises LoadFailed as `names` does.

    `pattern` is a spec with the fields that its models have in common, `now_ns` the time in
    nanoseconds since the epoch.
    """
    scanner = EntryScanner(folder, pattern, now_ns)
    return join({name: scanner.scan(name, NOTHING) for name in names(folder)})


def entry_of(folder: Path, spec: model.ModelSpec) -> str:
    """Return the name of the entry that a spec was scanned in, or its own if it lies elsewhere."""
    path = Path(unquote(urlsplit(spec.uri).path))
    is_inside = spec.uri.startswith("file:") and folder in path.parents
    return path.relative_to(folder).parts[0] if is_inside else spec.id.name


def join(entries: Mapping[str, RepositoryEntry]) -> cluster_control.RepositoryScan:
    """Return all that the entries hold; of two models with one name and version, the first."""
    owners: dict[model.ModelId, str] = {}
    specs: list[model.ModelSpec] = []
    problems: list[str] = []
    broken: dict[str, str] = {}
    # In one order, so that each scan gives a name to the same one of two entries.
    for name, entry in sorted(entries.items()):
        problems += entry.problems
        if entry.is_broken:
            names_of = {repository_names.stem(name), *(spec.id.name for spec in entry.specs)}
            broken.update(dict.fromkeys(names_of, "; ".join(entry.problems)))
        for spec in entry.specs:
            owner = owners.setdefault(spec.id, name)
            if owner == name:
                specs.append(spec)
            else:
                problems.append(f"{name}: model {spec.id} is declared by {owner} already")
    return cluster_control.RepositoryScan(tuple(specs), tuple(problems), broken)


def scan_as_declared(
    folder: Path, spec: model.ModelSpec, declared: model_metadata.ModelDeclaration
) -> tuple[model.ModelSpec, ...]:
    """Return the specs of a scanned model as if its folder's configuration were `declared`.

    `spec` is one of the model's versions. Returns nothing if the model is no folder of its own, or
    is described for MLServer. Raises LoadFailed if the folder holds no version to serve.
    """
    name = entry_of(folder, spec)
    if not (folder / name).is_dir() or any(_settings_files(folder / name)):
        return ()
    pattern = model.ModelSpec(
        model.ModelId(""),
        "",
        pool=spec.pool,
        trust=spec.trust,
        load_timeout_s=spec.load_timeout_s,
        origin=spec.origin,
    )
    named = dataclasses.replace(declared, name=spec.id.name)
    entry = EntryScanner(folder, pattern, WHOLE_NS, named).scan(name, NOTHING)
    if not entry.specs:
        raise errors.LoadFailed("; ".join(entry.problems) or f"{name}: it has no version to serve")
    return entry.specs


@dataclass(frozen=True, slots=True)
class EntryScanner:
    """Scans the entries of a repository at the time `now_ns`; at `WHOLE_NS` nothing settles.

    `declared`, if not None, takes the place of the configuration in each folder.
    """

    folder: Path
    pattern: model.ModelSpec
    now_ns: int
    declared: model_metadata.ModelDeclaration | None = None

    def scan(self, name: str, before: RepositoryEntry) -> RepositoryEntry:
        """Return the entry as it is now. What is being written stays as it was `before`."""
        collector = _Collector(self, name, before)
        try:
            with collector.noting(""):
                collector.add_all(self.folder / name)
        except _StillWrittenError:
            return dataclasses.replace(before, is_settling=True)
        return RepositoryEntry(
            collector.all_specs(),
            tuple(collector.problems),
            collector.is_settling,
            collector.is_description_broken,
        )

    def is_settling(self, changed_ns: int) -> bool:
        """Return whether a file that changed then may still be written to."""
        return settling.is_recent(changed_ns, self.now_ns)

    def is_being_written(self, path: Path) -> bool:
        """Return whether a file or folder may still be written to. Raises as a stamp does."""
        is_whole = self.now_ns == WHOLE_NS
        return not is_whole and settling.is_being_written(path, self.now_ns)


class _StillWrittenError(Exception):
    """A description was changed a moment ago."""


class _Collector:
    """The models and problems of one entry, as far as it is scanned."""

    def __init__(self, scanner: EntryScanner, name: str, before: RepositoryEntry) -> None:
        self._scanner = scanner
        # Problems are told as JSON, which has no form for a file name that is not UTF-8.
        self._name = name.encode("utf-8", "replace").decode()
        self._before = {spec.id: spec for spec in before.specs}
        self.specs: list[model.ModelSpec] = []
        self.problems: list[str] = []
        self.is_settling = False
        self.is_description_broken = False

    def all_specs(self) -> tuple[model.ModelSpec, ...]:
        """Return the models of the entry: beside a broken description, also those of before it."""
        if not self.is_description_broken:
            return tuple(self.specs)
        kept = {**self._before, **{spec.id: spec for spec in self.specs}}
        return tuple(kept.values())

    @contextlib.contextmanager
    def _describing(self) -> Iterator[None]:
        """Keep what was served if a description can't be read: a typo must withdraw nothing."""
        try:
            yield
        except (OSError, ValueError, errors.LoadFailed):
            self.is_description_broken = True
            raise

    @contextlib.contextmanager
    def noting(self, below: str) -> Iterator[None]:
        """Note an error of a part of the entry as a problem; scan again soon if a file vanished."""
        try:
            yield
        except FileNotFoundError:
            self.is_settling = True
        except (OSError, ValueError, errors.LoadFailed) as error:
            self.problems.append(f"{self._name}{below}: {_words(error)}")

    def add_all(self, path: Path) -> None:
        """Add all versions of all models of the entry.

        Raises OSError, ValueError or LoadFailed if it can't be read or understood.
        """
        if not path.is_dir():
            if repository_names.is_model_file(path):
                self._add(
                    model_metadata.ModelDeclaration(name=repository_names.stem(path.name)),
                    "1",
                    path,
                    content.stamp(path),
                )
            return
        settings_files = list(_settings_files(path))
        for file in settings_files:
            with self.noting("" if file.parent == path else f"/{file.parent.name}"):
                self._add_mlserver(file)
        if not settings_files:
            self._add_versions(path)

    def _add_mlserver(self, settings: Path) -> None:
        with self._describing():
            declared = mlserver_settings.read(self._read(settings))
        folder, version = settings.parent, declared.version or "1"
        if model_uri.SCHEME.match(declared.uri):
            declared = dataclasses.replace(declared, name=declared.name or folder.name)
            self._add_spec(_spec(self._scanner.pattern, declared, version, declared.uri))
        else:
            path = folder / declared.uri
            # The folder may be ".", which has no name.
            declared = dataclasses.replace(declared, name=declared.name or folder.resolve().name)
            self._add(declared, version, path, content.stamp(path))

    def _add_versions(self, path: Path) -> None:
        configuration = path / triton_config.FILE
        declared = model_metadata.ModelDeclaration()
        with self._describing():
            if self._scanner.declared is not None:
                declared = self._scanner.declared
            elif configuration.is_file():
                declared = triton_config.read(self._read(configuration))
            declared = dataclasses.replace(declared, name=declared.name or path.name)
            for name in declared.label_files.values():
                self._check_settled(path / name)
            labels = triton_config.read_labels(path, declared.label_files)
            description = declared.description(labels)
        folders = self._version_folders(path, is_triton=bool(declared.config))
        if not folders:
            self._add_unversioned(declared, path, description)
            return
        stamps = {
            version: stamp
            for version, folder in folders.items()
            if (stamp := self._stamp_of_version(folder, declared.name, version)) is not None
        }
        for version in declared.versions.choose(list(stamps)):
            self._add(declared, version, folders[version], stamps[version], description)

    def _version_folders(self, path: Path, *, is_triton: bool) -> dict[str, Path]:
        """Return the folders of versions by version, oldest first; note those passed over."""
        folders: dict[str, Path] = {}
        passed = []
        # Of `11` and `0011` it is the shorter one.
        for folder in sorted(_folders(path), key=lambda folder: (len(folder.name), folder.name)):
            version = repository_names.version_of(folder.name, is_triton=is_triton)
            if version and version not in folders:
                folders[version] = folder
            elif folder.name not in repository_names.OTHER_FOLDERS:
                passed.append(folder.name)
        if folders:
            self.problems += (
                f"{self._name}/{name}: passed over, because {repository_names.NO_VERSION}"
                for name in passed
            )
        return {version: folders[version] for version in sorted(folders, key=int)}

    def _add_unversioned(
        self, declared: model_metadata.ModelDeclaration, path: Path, description: str
    ) -> None:
        if not any(file.is_file() and file.name != triton_config.FILE for file in _visible(path)):
            changed_ns = path.stat().st_mtime_ns
            self.is_settling = self.is_settling or self._scanner.is_settling(changed_ns)
            raise ValueError(
                "there is neither a folder of a version (a whole number), "
                "nor a file of a model, nor model-settings.json"
            )
        self._add(declared, "1", path, content.stamp(path), description)

    def _stamp_of_version(self, folder: Path, name: str, version: str) -> content.Stamp | None:
        """Return a version's stamp, or None for a new one that is still being written."""
        # A known version is judged by `_add`, which keeps what it was while it is being written.
        with self.noting(f"/{folder.name}"):
            stamp = content.stamp(folder)
            if model.ModelId(name, version) in self._before or not self._scanner.is_being_written(
                folder
            ):
                return stamp
            self.is_settling = True
        return None

    def _add(
        self,
        declared: model_metadata.ModelDeclaration,
        version: str,
        path: Path,
        stamp: content.Stamp,
        description: str = "",
    ) -> None:
        """Add a model of this node's disk, or what it was before if it is being written."""
        uri = model_uri.stamped(str(path.absolute()), stamp.text)
        spec = _spec(self._scanner.pattern, declared, version, uri)
        spec = dataclasses.replace(spec, description=description)
        before = self._before.get(spec.id)
        # Most scans find what the one before found, and need not look at hidden files.
        if spec == before or not self._scanner.is_being_written(path):
            self._add_spec(spec)
            return
        self.is_settling = True
        if before is not None:
            self._add_spec(before)

    def _add_spec(self, spec: model.ModelSpec) -> None:
        model_metadata.check_name(spec.id.name)
        self.specs.append(spec)

    def _check_settled(self, path: Path) -> None:
        # Not by the modification time, which rsync and tar set back.
        if path.exists() and self._scanner.is_settling(path.stat().st_ctime_ns):
            raise _StillWrittenError

    def _read(self, path: Path) -> str:
        self._check_settled(path)
        with path.open("rb") as stream:
            text = stream.read(TEXT_BYTES_MAX + 1)
        if len(text) > TEXT_BYTES_MAX:
            raise ValueError(f"{path.name} is bigger than {TEXT_BYTES_MAX} bytes")
        return text.decode()


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not content.is_hidden(path.name))


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _settings_files(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Yield MLServer's settings in the folder, or else those in the folders below.

    Folders of versions, which are whole numbers, are looked into, but not those in them.
    """
    if (folder / mlserver_settings.FILE).is_file():
        yield folder / mlserver_settings.FILE
    elif depth < SETTINGS_DEPTH_MAX and not folder.name.isdecimal():
        for path in _folders(folder):
            yield from _settings_files(path, depth + 1)


def _spec(
    pattern: model.ModelSpec,
    declared: model_metadata.ModelDeclaration,
    version: str,
    uri: str,
) -> model.ModelSpec:
    return dataclasses.replace(
        pattern,
        id=model.ModelId(declared.name, version),
        uri=uri,
        runtime=declared.runtime,
        inputs=declared.inputs,
        outputs=declared.outputs,
        batching=pattern.batching if declared.batching is None else declared.batching,
        max_batch_size=declared.max_batch_size or pattern.max_batch_size,
        options=declared.options,
    )


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
