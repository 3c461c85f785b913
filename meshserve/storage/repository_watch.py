"""Watch repositories: scan the entries that the system reports as changed, and at times all.

Some file systems report no changes, and none reports all of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import watchfiles

from meshserve import errors
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import desired, model
from meshserve.storage import (
    content,
    model_uri,
    repository_names,
    repository_scan,
    triton_config,
)

PULSE_S = 0.5
"""The interval at which settling entries are scanned again."""
RESCAN_S = 3.0
"""The interval of full scans, for file systems that report no changes."""
VANISHED_S = 2.0
"""A model is withdrawn when its files have been away this long: they may be coming back."""
RESCAN_SHARE_MAX = 0.05
"""The share of time that full scans may take: slow repositories are scanned less often."""

logger = logging.getLogger(__name__)


class FolderWatch:
    """A `cluster_control.RepositoryWatch` for folders of this node's disk.

    `watch` yields changes as `watchfiles.watch` does.
    """

    def __init__(
        self, watch: Callable[..., Iterator[set[tuple[watchfiles.Change, str]]]] = watchfiles.watch
    ) -> None:
        self._watch = watch
        self._looks: dict[str, list[_Look]] = {}

    async def scans(
        self,
        repository: desired.RepositorySettings,
        load_timeout_s: float,
        known: tuple[model.ModelSpec, ...] = (),
    ) -> AsyncIterator[cluster_control.RepositoryScan]:
        """Yield what the repository holds now, and again within 5 s of each change.

        Ends after the first if the repository is not to be watched. What is `known` of it stays
        while its description can't be read. Raises LoadFailed if the folder can't be read, also
        later: a disk that goes away must not withdraw its models.
        """
        pattern = model.ModelSpec(
            model.ModelId(""),
            "",
            pool=repository.pool,
            trust=repository.trust,
            load_timeout_s=load_timeout_s,
            origin=repository.origin,
        )
        view = RepositoryView(_folder(repository), pattern, known)
        if not repository.watch:
            yield await asyncio.to_thread(view.scan_whole)
            return
        looks = self._looks[repository.place] = []
        try:
            async for scan in self._scan_changes(view, looks):
                yield scan
        finally:
            # A later generator of the same place may have begun before this one's end.
            if self._looks.get(repository.place) is looks:
                del self._looks[repository.place]
            for look in looks:
                look.end()

    async def _scan_changes(
        self, view: RepositoryView, looks: list[_Look]
    ) -> AsyncIterator[cluster_control.RepositoryScan]:
        last: cluster_control.RepositoryScan | None = None
        async for changed in self._pulses(view.folder):
            # Before the scan: a look that comes meanwhile may be for files that it has passed.
            taken, looks[:] = tuple(looks), ()
            try:
                scan = await asyncio.to_thread(
                    view.update, changed, frozenset(look.name for look in taken)
                )
                if scan is not None and scan != last:
                    last = scan
                    yield scan
            finally:
                # After the yield: by now the caller has taken the scan.
                for look in taken:
                    look.end()

    async def look_at(self, repository: desired.RepositorySettings, name: str) -> None:
        """Return once `scans` has yielded the model's present files, and its caller has taken them.

        Nothing of the model counts as still being written. Returns at once if nothing follows the
        repository.
        """
        looks = self._looks.get(repository.place)
        if looks is None:
            return
        look = _Look(name, asyncio.get_running_loop().create_future())
        looks.append(look)
        await look.ended

    async def as_declared(
        self, repository: desired.RepositorySettings, spec: model.ModelSpec, configuration: str
    ) -> tuple[model.ModelSpec, ...]:
        """Return the versions of a model if its folder had this configuration of Triton, as JSON.

        `spec` is one of them. Returns nothing if no folder with versions is behind the model.
        Raises InvalidRequest for a malformed configuration, LoadFailed if nothing is to be served.
        """
        try:
            declared = triton_config.read_json(json.loads(configuration))
        except ValueError as error:
            raise errors.InvalidRequest(f"`config` is no model configuration: {error}") from None
        return await asyncio.to_thread(
            repository_scan.scan_as_declared, _folder(repository), spec, declared
        )

    async def _pulses(self, folder: Path) -> AsyncIterator[frozenset[str]]:
        """Yield the names of changed entries when the system reports them, and none every 0.5 s."""
        yield frozenset()
        stop = threading.Event()
        # Its own thread: a watch blocks it for as long as the mesh runs.
        thread = ThreadPoolExecutor(1, "watch")
        try:
            reports = self._watch(
                folder,
                watch_filter=None,
                debounce=200,
                rust_timeout=int(PULSE_S * 1000),
                # An empty set after each timeout is the pulse for entries that settle.
                yield_on_timeout=True,
                stop_event=stop,
            )
            while True:
                changes = await asyncio.get_running_loop().run_in_executor(thread, next, reports)
                yield frozenset(_entry(folder, Path(path)) for _, path in changes)
        except (OSError, RuntimeError) as error:
            logger.warning(
                "changes in %s are looked for every %s s, because the system can't report them: %s",
                folder,
                RESCAN_S,
                error,
            )
        finally:
            stop.set()
            thread.shutdown(wait=False)
        while True:
            await asyncio.sleep(PULSE_S)
            yield frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """A wish to have one model's files scanned now."""

    name: str
    ended: asyncio.Future[None]

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class RepositoryView:
    """The entries of a repository as they were last scanned; at first, as they are `known`."""

    def __init__(
        self, folder: Path, pattern: model.ModelSpec, known: Iterable[model.ModelSpec] = ()
    ) -> None:
        self.folder = folder
        self._pattern = pattern
        self._entries: dict[str, repository_scan.RepositoryEntry] = {}
        self._rescan_s = 0.0
        # When a model of an entry was first missed, by the entry's name.
        self._missing: dict[str, dict[model.ModelId, float]] = {}
        for spec in known:
            entry = repository_scan.entry_of(folder, spec)
            before = self._entries.get(entry, repository_scan.NOTHING)
            self._entries[entry] = repository_scan.RepositoryEntry((*before.specs, spec))

    def scan_whole(self) -> cluster_control.RepositoryScan:
        """Scan all entries, none of which counts as still being written, and return what there is.

        Raises LoadFailed if the folder can't be read.
        """
        self._rescan(self._scanner(repository_scan.WHOLE_NS))
        return repository_scan.join(self._entries)

    def update(
        self, changed: frozenset[str], whole: frozenset[str] = frozenset()
    ) -> cluster_control.RepositoryScan | None:
        """Scan changed and settling entries, or all if that is due; return all that there is now.

        The models named in `whole` are scanned as written to their ends. Returns None if nothing
        was scanned. Raises LoadFailed if the folder can't be read.
        """
        scanner = self._scanner(time.time_ns())
        if must_rescan := self._must_rescan(changed):
            self._rescan(scanner)
        unsettled = {name for name, entry in self._entries.items() if entry.is_settling}
        entries = set() if must_rescan else changed | unsettled
        present = {*repository_scan.names(self.folder), *self._entries} if whole else ()
        finished = {entry for name in whole for entry in self._entries_of(name, present)}
        if not (must_rescan or entries or finished):
            return None
        for name in entries - finished:
            self._scan(scanner, name)
        for name in finished:
            self._scan(self._scanner(repository_scan.WHOLE_NS), name)
        return repository_scan.join(self._entries)

    def _scanner(self, now_ns: int) -> repository_scan.EntryScanner:
        return repository_scan.EntryScanner(self.folder, self._pattern, now_ns)

    def _entries_of(self, name: str, entries: Iterable[str]) -> set[str]:
        """Return those of the entries that hold a model of this name, or may by their own names."""
        return {
            entry
            for entry in entries
            if name in (entry, repository_names.stem(entry))
            or any(
                spec.id.name == name
                for spec in self._entries.get(entry, repository_scan.NOTHING).specs
            )
        }

    def _must_rescan(self, changed: frozenset[str]) -> bool:
        """Return whether a full scan is due.

        It also is if a hidden name changed, because Kubernetes changes links under hidden names,
        and if the whole folder is one model.
        """
        return (
            time.monotonic() >= self._rescan_s
            or any(content.is_hidden(name) for name in changed)
            or "." in self._entries
        )

    def _rescan(self, scanner: repository_scan.EntryScanner) -> None:
        began_s = time.monotonic()
        names = repository_scan.names(self.folder)
        for gone in self._entries.keys() - set(names):
            self._keep(scanner, gone, repository_scan.NOTHING)
        for name in names:
            self._scan(scanner, name)
        took_s = time.monotonic() - began_s
        self._rescan_s = time.monotonic() + max(RESCAN_S, took_s / RESCAN_SHARE_MAX)

    def _scan(self, scanner: repository_scan.EntryScanner, name: str) -> None:
        before = self._entries.get(name, repository_scan.NOTHING)
        self._keep(scanner, name, scanner.scan(name, before))

    def _keep(
        self,
        scanner: repository_scan.EntryScanner,
        name: str,
        entry: repository_scan.RepositoryEntry,
    ) -> None:
        # Who says that everything is written also means what is gone.
        if scanner.now_ns != repository_scan.WHOLE_NS:
            entry = self._with_vanished(name, entry)
        if entry == repository_scan.NOTHING:
            self._entries.pop(name, None)
        else:
            self._entries[name] = entry

    def _with_vanished(
        self, name: str, entry: repository_scan.RepositoryEntry
    ) -> repository_scan.RepositoryEntry:
        """Return the entry with the models that were there `VANISHED_S` ago or later."""
        # git and others remove all that changes before they write it anew.
        before = self._entries.get(name, repository_scan.NOTHING)
        present = {spec.id for spec in entry.specs}
        now_s, since_s = time.monotonic(), self._missing.pop(name, {})
        kept = tuple(
            spec
            for spec in before.specs
            if spec.id not in present and now_s - since_s.get(spec.id, now_s) < VANISHED_S
        )
        if not kept:
            return entry
        self._missing[name] = {spec.id: since_s.get(spec.id, now_s) for spec in kept}
        return dataclasses.replace(entry, specs=(*entry.specs, *kept), is_settling=True)


def _folder(repository: desired.RepositorySettings) -> Path:
    source = model_uri.parse(repository.place)
    if source.kind != "local":
        raise errors.LoadFailed(
            f"repository {source.shown}: only folders on this node's disk are read"
        )
    return Path(source.path)


def _entry(folder: Path, changed: Path) -> str:
    """Return the entry that a changed path belongs to, or a hidden name if it is unknown."""
    return changed.relative_to(folder).parts[0] if folder in changed.parents else ".unknown"
