"""Repositories as they change: looked at when the system tells of a change, and every few seconds in case it did not."""

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
RESCAN_S = 3.0
RESCAN_SHARE_MAX = 0.05
"""Of the time, for looking at everything again: a repository that takes long to look at is looked at less often."""

logger = logging.getLogger(__name__)


class FolderWatch:
    """Implements core.control_ports.Watch for folders of this node's disk. `tell` tells of changes, as `watchfiles.watch` does."""

    def __init__(
        self, tell: Callable[..., Iterator[set[tuple[watchfiles.Change, str]]]] = watchfiles.watch
    ) -> None:
        self._tell = tell

    async def scans(
        self, of: desired.RepositorySettings, load_timeout_s: float
    ) -> AsyncIterator[cluster_control.RepositoryScan]:
        """What the repository holds now, and again after each change, within 5 s of it; ends after the first where it is not to be watched.

        Raises LoadFailed where there is no such folder, also later on: a disk that went away is no reason to withdraw its models.
        """
        source = model_uri.parse(of.place)
        if source.kind != "local":
            raise errors.LoadFailed(
                f"repository {source.shown}: only folders on this node's disk are read"
            )
        pattern = model.ModelSpec(
            model.ModelId(""),
            "",
            pool=of.pool,
            trust=of.trust,
            load_timeout_s=load_timeout_s,
            origin=of.origin,
        )
        seen = RepositoryView(Path(source.path), pattern)
        if not of.watch:
            yield await asyncio.to_thread(repository_scan.scan, seen.folder, pattern, 0)
            return
        async for scan in self._watched(seen):
            yield scan

    async def _watched(self, seen: RepositoryView) -> AsyncIterator[cluster_control.RepositoryScan]:
        last: cluster_control.RepositoryScan | None = None
        async for changed in self._pulses(seen.folder):
            scan = await asyncio.to_thread(seen.look, changed)
            if scan is not None and scan != last:
                last = scan
                yield scan

    async def _pulses(self, folder: Path) -> AsyncIterator[frozenset[str]]:
        """The names of entries that changed, at once where the system can tell, and none of them from time to time."""
        yield frozenset()
        stop = threading.Event()
        thread = ThreadPoolExecutor(1, "watch")
        try:
            notes = self._tell(
                folder,
                watch_filter=None,
                debounce=200,
                rust_timeout=int(PULSE_S * 1000),
                yield_on_timeout=True,
                stop_event=stop,
            )
            while True:
                changes = await asyncio.get_running_loop().run_in_executor(thread, next, notes)
                yield frozenset(_entry(folder, Path(path)) for _, path in changes)
        except (OSError, RuntimeError) as error:
            logger.warning(
                "changes in %s are looked for every %s s, because the system can't tell of them: %s",
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
    """What was last seen of each entry of a repository."""

    def __init__(self, folder: Path, pattern: model.ModelSpec) -> None:
        self.folder = folder
        self._pattern = pattern
        self._entries: dict[str, repository_scan.RepositoryEntry] = {}
        self._rescan_s = 0.0

    def look(self, changed: frozenset[str]) -> cluster_control.RepositoryScan | None:
        """What there is now, by looking at what changed and what is being written, or at all; None if there was nothing to look at."""
        look = repository_scan.RepositoryLook(self.folder, self._pattern, time.time_ns())
        if self._must_rescan(changed):
            self._rescan(look)
            return repository_scan.join(self._entries)
        unsettled = {name for name, entry in self._entries.items() if entry.is_settling}
        if not changed | unsettled:
            return None
        for name in changed | unsettled:
            self._take(name, look.entry(name, self._entries.get(name, repository_scan.NOTHING)))
        return repository_scan.join(self._entries)

    def _must_rescan(self, changed: frozenset[str]) -> bool:
        """Also where links may have changed under hidden names, as Kubernetes does it, or the whole folder is one model."""
        return (
            time.monotonic() >= self._rescan_s
            or any(content.is_hidden(name) for name in changed)
            or "." in self._entries
        )

    def _rescan(self, look: repository_scan.RepositoryLook) -> None:
        began_s = time.monotonic()
        names = repository_scan.names(self.folder)
        for gone in self._entries.keys() - set(names):
            del self._entries[gone]
        for name in names:
            self._take(name, look.entry(name, self._entries.get(name, repository_scan.NOTHING)))
        took_s = time.monotonic() - began_s
        self._rescan_s = time.monotonic() + max(RESCAN_S, took_s / RESCAN_SHARE_MAX)

    def _take(self, name: str, entry: repository_scan.RepositoryEntry) -> None:
        if entry == repository_scan.NOTHING:
            self._entries.pop(name, None)
        else:
            self._entries[name] = entry


def _entry(folder: Path, changed: Path) -> str:
    """The entry that a change belongs to; a hidden name where that can't be said."""
    return changed.relative_to(folder).parts[0] if folder in changed.parents else ".unknown"
