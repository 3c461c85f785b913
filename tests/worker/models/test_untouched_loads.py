from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.worker.models import loader, untouched_loads
from tests.worker import helpers

ARTIFACT = model_runtime.Artifact(Path("/m"), "sha256:1", 1)


class Loads:
    """A storage whose files are touched during the first `touched` loads, which may fail."""

    def __init__(self, folder: Path, touched: int, failures: int = 0) -> None:
        self.storage = helpers.FakeStorage(folder)
        self.recipe: Any = SimpleNamespace(stored=ARTIFACT, is_held=True)
        self.checks, self.reads = 0, 0
        self.discarded: list[int] = []
        self._touched, self._failures = touched, failures

    async def load(self) -> Any:
        return await untouched_loads.load(
            self.storage, self.recipe, self._check, self._read, self._discard
        )

    async def _check(self, _: loader.LoadRecipe) -> None:
        self.checks += 1

    async def _read(self, _: loader.LoadRecipe) -> Any:
        assert self.storage.held[ARTIFACT.digest] == 1
        self.reads += 1
        self.storage.touched[ARTIFACT.digest] = self.reads <= self._touched
        if self.reads <= self._failures:
            raise errors.LoadFailed("it can't be read")
        return self.reads

    def _discard(self, _: loader.LoadRecipe, copy: Any) -> None:
        self.discarded.append(copy)


async def test_untouched_files_are_loaded_once(tmp_path: Path) -> None:
    loads = Loads(tmp_path, touched=0)
    assert await loads.load() == 1
    assert (loads.checks, loads.discarded, loads.storage.held[ARTIFACT.digest]) == (1, [], 1)


async def test_a_copy_of_files_that_changed_meanwhile_is_discarded(tmp_path: Path) -> None:
    loads = Loads(tmp_path, touched=1)
    assert await loads.load() == 2
    assert (loads.checks, loads.discarded, loads.storage.held[ARTIFACT.digest]) == (2, [1], 1)


async def test_a_failure_counts_if_the_files_are_what_they_were(tmp_path: Path) -> None:
    loads = Loads(tmp_path, touched=1, failures=1)
    assert await loads.load() == 2
    loads = Loads(tmp_path, touched=0, failures=1)
    with pytest.raises(errors.LoadFailed, match="can't be read"):
        await loads.load()
    assert (loads.reads, loads.storage.held[ARTIFACT.digest]) == (1, 0)


async def test_files_that_change_all_the_time_are_told(tmp_path: Path) -> None:
    loads = Loads(tmp_path, touched=9)
    with pytest.raises(errors.LoadFailed, match="changed or went away") as refused:
        await loads.load()
    assert refused.value.retry_after_s is not None
    assert (loads.reads, loads.storage.held[ARTIFACT.digest]) == (untouched_loads.TRIES, 0)
