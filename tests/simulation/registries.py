"""A registry that is slow or fails: the real one, on a file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from meshserve import errors, registry
from meshserve.core.values import registry_contents, reports
from tests.simulation import simulated_loop


class SlowRegistry:
    """Implements `registry_store.RegistryStore`. Writes take `slow_s`, and fail if `is_broken`."""

    _empty: Path | None = None

    def __init__(self, file: Path) -> None:
        self.slow_s = 0.001
        self.is_broken = False
        self._copy_empty(file)
        self._real = registry.SqlRegistry(f"sqlite:///{file}")

    @classmethod
    def _copy_empty(cls, file: Path) -> None:
        # Making the tables takes longer than most simulations have.
        if cls._empty is None or not cls._empty.exists():
            empty = file.with_name("empty.db")
            new = registry.SqlRegistry(f"sqlite:///{empty}")
            new.load()
            new.close()
            cls._empty = empty.rename(file.parent.parent / "empty.db")
        shutil.copyfile(cls._empty, file)

    def close(self) -> None:
        self._real.close()

    def load(self) -> registry_contents.RegistryContents:
        return self._real.load()

    def save(self, changes: Sequence[registry_contents.RegistryChange]) -> None:
        # The controller may die before or after the write.
        simulated_loop.work(self.slow_s / 2)
        self._check()
        self._real.save(changes)
        simulated_loop.work(self.slow_s / 2)

    def remember(self, learned: Sequence[reports.LearnedMeasurement]) -> None:
        simulated_loop.work(self.slow_s)
        self._check()
        self._real.remember(learned)

    def settle(self) -> bool:
        return self._real.settle()

    def read_lease(self) -> registry_contents.WriteLease:
        return self._real.read_lease()

    def take_lease(self, holder: str, about: str, seen: registry_contents.WriteLease) -> bool:
        return self._real.take_lease(holder, about, seen)

    def renew_lease(self) -> None:
        self._check()
        self._real.renew_lease()

    def release_lease(self) -> None:
        self._real.release_lease()

    def interrupt(self) -> None:
        """Do nothing, as with any SQLite."""

    def _check(self) -> None:
        if self.is_broken:
            raise errors.Unavailable("the registry is broken")
