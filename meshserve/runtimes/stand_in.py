"""Modules that models import and that exist inside another server alone."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType


class StandIn:
    """Modules in `sys.modules`, as long as a model uses them and the real ones are not installed.

    `name` is the top module's; `make` returns all of them by their names. Several threads may call.
    """

    def __init__(self, name: str, make: Callable[[], Mapping[str, ModuleType]]) -> None:
        self.name = name
        self._make = make
        self._lock = threading.Lock()
        self._users = 0
        self._shown: Mapping[str, ModuleType] = {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Have the modules importable meanwhile."""
        self._take()
        try:
            yield
        finally:
            self._give_back()

    def held_for(self, folder: Path) -> contextlib.AbstractContextManager[None]:
        """Return `held()` if a file of the folder names the module, else one without effect."""
        name = self.name.encode()
        is_used = any(name in file.read_bytes() for file in folder.rglob("*.py"))
        return self.held() if is_used else contextlib.nullcontext()

    def _take(self) -> None:
        with self._lock:
            # `find_spec` raises for a stand-in, which has no spec, so users are counted first.
            if not self._users and importlib.util.find_spec(self.name) is None:
                self._shown = self._make()
                sys.modules.update(self._shown)
            # Last, because making them may fail: then the next user tries it again.
            self._users += 1

    def _give_back(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            for name in self._shown:
                sys.modules.pop(name, None)
            self._shown = {}
