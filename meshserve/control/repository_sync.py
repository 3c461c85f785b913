"""Follow the configured repositories, so that the models they hold are served."""

from __future__ import annotations

import asyncio
import logging

from meshserve import errors, tasks
from meshserve.control import controller
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import desired, events

RETRY_S = 5.0

logger = logging.getLogger(__name__)


class RepositorySync:
    """One task for each repository."""

    def __init__(
        self,
        controller_: controller.Controller,
        watch: cluster_control.RepositoryWatch,
        clock: cluster_control.Clock,
    ) -> None:
        self._controller = controller_
        self._watch = watch
        self._clock = clock
        self._tasks: dict[tuple[desired.RepositorySettings, float], asyncio.Task[None]] = {}

    def follow(self, wanted: desired.Desired) -> None:
        """Follow exactly the repositories of this configuration.

        A repository whose settings have not changed is not scanned again.
        """
        keys = {
            (repository, _load_timeout_s(wanted, repository)) for repository in wanted.repositories
        }
        for key in self._tasks.keys() - keys:
            self._tasks.pop(key).cancel()
        for repository, load_timeout_s in keys - self._tasks.keys():
            work = self._follow(repository, load_timeout_s)
            name = f"repository {repository.place}"
            self._tasks[repository, load_timeout_s] = tasks.spawn(work, name)

    def close(self) -> None:
        """Stop following all repositories."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _follow(self, repository: desired.RepositorySettings, load_timeout_s: float) -> None:
        while True:
            try:
                await self._register_scans(repository, load_timeout_s)
            except errors.MeshError as error:
                logger.warning("repository %s: %s", repository.place, error.message)
            else:
                return
            # A disk may be mounted again, and a registry may accept writes again.
            await self._clock.sleep(RETRY_S)

    async def _register_scans(
        self, repository: desired.RepositorySettings, load_timeout_s: float
    ) -> None:
        async for scan in self._watch.scans(repository, load_timeout_s):
            words = await self._controller.submit(
                events.RepositoryScanned(repository.origin, scan.specs)
            )
            for line in (*words, *scan.problems):
                logger.info("repository %s: %s", repository.place, line)


def _load_timeout_s(wanted: desired.Desired, repository: desired.RepositorySettings) -> float:
    pool = wanted.pool(repository.pool) or desired.PoolSettings()
    return pool.load_timeout_s
