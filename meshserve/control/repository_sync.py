"""Follow the configured repositories, so that the models they hold are served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from meshserve import errors, tasks
from meshserve.control import controller
from meshserve.core.catalog import admin_requests
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
        self._problems: dict[str, tuple[str, ...]] = {}

    def problems(self) -> Mapping[str, tuple[str, ...]]:
        """Return for each repository, by its place, what of it is not served, in words."""
        return self._problems

    def follow(self, wanted: desired.Desired) -> None:
        """Follow exactly the repositories of this configuration.

        A repository whose settings have not changed is not scanned again.
        """
        keys = {
            (repository, _load_timeout_s(wanted, repository)) for repository in wanted.repositories
        }
        for key in self._tasks.keys() - keys:
            self._tasks.pop(key).cancel()
            self._problems.pop(key[0].place, None)
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
                self._tell(repository.place, (error.message,))
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
            refused = tuple(line for line in words if admin_requests.NOT_SERVED in line)
            for line in words:
                if line not in refused:
                    logger.info("repository %s: %s", repository.place, line)
            self._tell(repository.place, (*refused, *scan.problems))

    def _tell(self, place: str, problems: tuple[str, ...]) -> None:
        """Keep what is wrong for the status; the log has each problem once, while it lasts."""
        before = self._problems.get(place, ())
        for line in problems:
            if line not in before:
                logger.warning("repository %s: %s", place, line)
        self._problems[place] = problems


def _load_timeout_s(wanted: desired.Desired, repository: desired.RepositorySettings) -> float:
    pool = wanted.pool(repository.pool) or desired.PoolSettings()
    return pool.load_timeout_s
