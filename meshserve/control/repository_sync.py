"""Follows the configured repositories: what they hold is what is served."""

from __future__ import annotations

import asyncio
import logging

from meshserve import errors, tasks
from meshserve.control import controller
from meshserve.core.interfaces import cluster_control as ports
from meshserve.core.values import desired, events

AGAIN_AFTER_S = 5.0

logger = logging.getLogger(__name__)


class RepositorySync:
    """One task for each repository."""

    def __init__(
        self, of: controller.Controller, watch: ports.RepositoryWatch, clock: ports.Clock
    ) -> None:
        self._controller = of
        self._watch = watch
        self._clock = clock
        self._tasks: dict[tuple[desired.RepositorySettings, float], asyncio.Task[None]] = {}

    def follow(self, wanted: desired.Desired) -> None:
        """Follow exactly the repositories of this configuration; those that are followed alike already are left alone."""
        keys = {(each, _load_timeout_s(wanted, each)) for each in wanted.repositories}
        for key in self._tasks.keys() - keys:
            self._tasks.pop(key).cancel()
        for each, load_timeout_s in keys - self._tasks.keys():
            work = self._follow(each, load_timeout_s)
            self._tasks[each, load_timeout_s] = tasks.spawn(work, f"repository {each.place}")

    def close(self) -> None:
        """Follow nothing any more."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _follow(self, repository: desired.RepositorySettings, load_timeout_s: float) -> None:
        while True:
            try:
                await self._take_scans(repository, load_timeout_s)
            except errors.MeshError as error:
                logger.warning("repository %s: %s", repository.place, error.message)
            else:
                return
            await self._clock.sleep(AGAIN_AFTER_S)

    async def _take_scans(
        self, repository: desired.RepositorySettings, load_timeout_s: float
    ) -> None:
        async for scan in self._watch.scans(repository, load_timeout_s):
            words = await self._controller.submit(
                events.RepositoryScanned(repository.origin, scan.specs)
            )
            for line in (*words, *scan.problems):
                logger.info("repository %s: %s", repository.place, line)


def _load_timeout_s(wanted: desired.Desired, repository: desired.RepositorySettings) -> float:
    pool = wanted.pool(repository.pool)
    return pool.load_timeout_s if pool else desired.PoolSettings().load_timeout_s
