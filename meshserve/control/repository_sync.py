"""Follow the configured repositories, so that the models they hold are served."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping

from meshserve import errors, tasks
from meshserve.control import controller
from meshserve.core.catalog import repository_changes
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import desired, events, model

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
        self._broken: dict[str, Mapping[str, str]] = {}

    def problems(self) -> Mapping[str, tuple[str, ...]]:
        """Return for each repository, by its place, what of it is not served, in words."""
        return self._problems

    def follow(self, wanted: desired.Desired) -> None:
        """Follow exactly the repositories of this configuration.

        A repository whose settings have not changed is not scanned again.
        """
        # With the time-out of the pool, which the specs of a scan carry: another one needs another
        # scan.
        keys = {
            (repository, _load_timeout_s(wanted, repository)) for repository in wanted.repositories
        }
        for key in self._tasks.keys() - keys:
            self._tasks.pop(key).cancel()
            self._problems.pop(key[0].place, None)
        for repository, load_timeout_s in keys - self._tasks.keys():
            work = functools.partial(self._follow, repository, load_timeout_s)
            name = f"repository {repository.place}"
            self._tasks[repository, load_timeout_s] = tasks.spawn(tasks.keep(work, name), name)

    async def look_at(self, name: str) -> None:
        """Return once the present files of the model, in whichever repository, are registered.

        Raises LoadFailed if its description can't be read, or what refuses the registration.
        """
        # A list, because `follow` may change the tasks while this waits.
        for repository, load_timeout_s in list(self._tasks):
            if repository.watch:
                await self._watch.look_at(repository, name)
            else:
                await self._register_scans(repository, load_timeout_s)
            problem = self._broken.get(repository.place, {}).get(name)
            if problem:
                raise errors.LoadFailed(problem)

    async def as_declared(
        self, spec: model.ModelSpec, configuration: str
    ) -> tuple[model.ModelSpec, ...]:
        """Return a repository's model as this configuration of Triton, JSON, would have it.

        Returns nothing if no folder with versions is behind it. Raises InvalidRequest for a
        malformed configuration, LoadFailed if nothing is to be served.
        """
        places = {repository.origin: repository for repository, _ in self._tasks}
        repository = places.get(spec.origin)
        if repository is None:
            return ()
        return await self._watch.as_declared(repository, spec, configuration)

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
                # Scans end by themselves only where the repository is not watched.
                return
            # A disk may be mounted again, and a registry may accept writes again.
            await self._clock.sleep(RETRY_S)

    async def _register_scans(
        self, repository: desired.RepositorySettings, load_timeout_s: float
    ) -> None:
        # A description that is broken when a controller starts must not withdraw what was served.
        known = self._known(repository.origin)
        async for scan in self._watch.scans(repository, load_timeout_s, known):
            words = await self._controller.submit(
                events.RepositoryScanned(repository.origin, scan.specs)
            )
            refused = tuple(line for line in words if repository_changes.NOT_SERVED in line)
            for line in words:
                if line not in refused:
                    logger.info("repository %s: %s", repository.place, line)
            self._tell(repository.place, (*refused, *scan.problems))
            self._broken[repository.place] = scan.broken

    def _known(self, origin: model.Origin) -> tuple[model.ModelSpec, ...]:
        """Return what the repository has declared so far, overrides apart."""
        specs: dict[model.ModelId, model.ModelSpec] = {}
        for declared in self._controller.view().models:
            if declared.spec.origin == origin:
                # An override is no declaration of the repository's, but what it replaces is.
                own = declared.spec.replaced or (declared.spec,)
                specs.update((spec.id, spec) for spec in own)
        return tuple(specs.values())

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
