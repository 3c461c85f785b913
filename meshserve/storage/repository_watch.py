"""Watch repositories: scan the entries that the system reports as changed, and at times all.

Some file systems report no changes, and none reports all of them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import watchfiles

from meshserve import errors
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import desired, model
from meshserve.storage import content, model_uri, repository_scan

PULSE_S = 0.5
"""The interval at which settling entries are scanned again."""
RESCAN_S = 3.0
"""The interval of full scans, for file systems that report no changes."""
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

    async def scans(
        self, repository: desired.RepositorySettings, load_timeout_s: float
    ) -> AsyncIterator[cluster_control.RepositoryScan]:
        """Yield what the repository holds now, and again within 5 s of each change.

        Ends after the first if the repository is not to be watched. Raises LoadFailed if the folder
        can't be read, also later: a disk that goes away must not withdraw its models.
        """
        source = model_uri.parse(repository.place)
        if source.kind != "local":
            raise errors.LoadFailed(
                f"repository {source.shown}: only folders on this node's disk are read"
            )
        pattern = model.ModelSpec(
            model.ModelId(""),
            "",
            pool=repository.pool,
            trust=repository.trust,
            load_timeout_s=load_timeout_s,
            origin=repository.origin,
        )
        view = RepositoryView(Path(source.path), pattern)
        if not repository.watch:
            yield await asyncio.to_thread(repository_scan.scan, view.folder, pattern, 0)
            return
        async for scan in self._scan_changes(view):
            yield scan

    async def _scan_changes(
        self, view: RepositoryView
    ) -> AsyncIterator[cluster_control.RepositoryScan]:
        last: cluster_control.RepositoryScan | None = None
        async for changed in self._pulses(view.folder):
            scan = await asyncio.to_thread(view.update, changed)
            if scan is not None and scan != last:
                last = scan
                yield scan

    async def _pulses(self, folder: Path) -> AsyncIterator[frozenset[str]]:
        """Yield the names of changed entries when the system reports them, and none every 0.5 s."""
        yield frozenset()
        stop = threading.Event()
        thread = ThreadPoolExecutor(1, "watch")
        try:
            reports = self._watch(
                folder,
                watch_filter=None,
                debounce=200,
                rust_timeout=int(PULSE_S * 1000),
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


class RepositoryView:
    """The entries of a repository as they were last scanned."""

    def __init__(self, folder: Path, pattern: model.ModelSpec) -> None:
        self.folder = folder
        self._pattern = pattern
        self._entries: dict[str, repository_scan.RepositoryEntry] = {}
        self._rescan_s = 0.0

    def update(self, changed: frozenset[str]) -> cluster_control.RepositoryScan | None:
        """Scan changed and settling entries, or all if that is due; return all that there is now.

        Returns None if nothing was scanned. Raises LoadFailed if the folder can't be read.
        """
        scanner = repository_scan.EntryScanner(self.folder, self._pattern, time.time_ns())
        if self._must_rescan(changed):
            self._rescan(scanner)
            return repository_scan.join(self._entries)
        unsettled = {name for name, entry in self._entries.items() if entry.is_settling}
        if not changed | unsettled:
            return None
        for name in changed | unsettled:
            self._scan(scanner, name)
        return repository_scan.join(self._entries)

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
            del self._entries[gone]
        for name in names:
            self._scan(scanner, name)
        took_s = time.monotonic() - began_s
        self._rescan_s = time.monotonic() + max(RESCAN_S, took_s / RESCAN_SHARE_MAX)

    def _scan(self, scanner: repository_scan.EntryScanner, name: str) -> None:
        entry = scanner.scan(name, self._entries.get(name, repository_scan.NOTHING))
        if entry == repository_scan.NOTHING:
            self._entries.pop(name, None)
        else:
            self._entries[name] = entry


def _entry(folder: Path, changed: Path) -> str:
    """Return the entry that a changed path belongs to, or a hidden name if it is unknown."""
    return changed.relative_to(folder).parts[0] if folder in changed.parents else ".unknown"
