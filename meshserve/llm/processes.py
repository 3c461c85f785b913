"""The processes that an engine has started, and theirs: found, remembered, and ended."""

from __future__ import annotations

import contextlib
import multiprocessing

import psutil


class Family:
    """All that is started by `multiprocessing` from when it is made, with descendants. Grandchildren whose parent died are remembered."""

    def __init__(self) -> None:
        self._strangers = {child.pid for child in multiprocessing.active_children()}
        self._known: set[psutil.Process] = set()

    def remember(self) -> None:
        """Note those that live now, for when they can't be found by their parents any more."""
        for child in multiprocessing.active_children():
            if child.pid is not None and child.pid not in self._strangers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    parent = psutil.Process(child.pid)
                    self._known.update((parent, *parent.children(recursive=True)))

    def living(self) -> list[psutil.Process]:
        """Those that are not gone."""
        self.remember()
        return [each for each in self._known if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]

    def kill(self) -> None:
        """End every one of them, children first, so that no parent can tidy up after a child or start another."""
        for each in self.living():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()

    def wait(self, timeout_s: float) -> None:
        """Return once they are gone, or the time is over."""
        psutil.wait_procs(self.living(), timeout=timeout_s)
        multiprocessing.active_children()
