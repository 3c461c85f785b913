"""Follow the local files of models that no repository holds, so that a version has one content.

Each declaration carries the stamp of the files that it means, as a repository's do. Files that are
overwritten are another content, which all workers take at once, and keep the old one until then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable
from typing import Protocol

from meshserve import errors, tasks
from meshserve.control import controller
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import catalog, events, model

PULSE_S = 1.0
"""The interval at which the files are looked at."""
SHARE_MAX = 0.05
"""The share of time that looking may take: many files are looked at less often."""

UriPair = tuple[str, str]
"""A model's URI, and the same with the stamp of the files that are declared, or ""."""

logger = logging.getLogger(__name__)


class StampSources(Protocol):
    """Finds changed files. It blocks, and is called in a thread."""

    def __call__(self, known: Collection[UriPair], *, is_said_whole: bool) -> dict[UriPair, str]:
        """Return the present URIs with stamps of what is not as it is `known`."""
        ...


def stamp_nothing(known: Collection[UriPair], *, is_said_whole: bool) -> dict[UriPair, str]:  # noqa: ARG001
    """Find no files at all."""
    return {}


class SourceSync:
    """One task that looks at the files of all models that are declared outside repositories."""

    def __init__(
        self,
        controller_: controller.Controller,
        stamp_sources: StampSources,
        clock: cluster_control.Clock,
    ) -> None:
        self._controller = controller_
        self._stamp_sources = stamp_sources
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def follow(self) -> None:
        """Look at the files again and again until `close`."""
        if self._task is None and self._stamp_sources is not stamp_nothing:
            name = "local files of models"
            self._task = tasks.spawn(tasks.keep(self._follow, name), name)

    async def look(self, name: str | None = None) -> None:
        """Declare the present files of a model, or of all; somebody says that they are whole.

        Files that are open for writing stay as they are declared. Raises what refuses the change.
        """
        await self._stamp(name, is_said_whole=True)

    def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()

    async def _follow(self) -> None:
        while True:
            began_s = time.monotonic()
            try:
                await self._stamp(None, is_said_whole=False)
            except errors.MeshError as error:
                logger.warning("changed files of models are not declared: %s", error)
            took_s = time.monotonic() - began_s
            await self._clock.sleep(max(PULSE_S, took_s / SHARE_MAX))

    def _declared(self, name: str | None) -> Iterable[catalog.ModelDeclared]:
        models = self._controller.view().models
        if name is None:
            return models
        ids = [model.ModelId(name, version) for version in models.versions(name)]
        return filter(None, map(models.declared, ids))

    async def _stamp(self, name: str | None, *, is_said_whole: bool) -> None:
        if self._stamp_sources is stamp_nothing:
            return
        known = {
            declared.spec.id: (declared.spec.uri, declared.stamped_uri)
            for declared in self._declared(name)
            # The scan of a repository stamps the files of its models itself.
            if declared.spec.origin.kind is not model.OriginKind.REPOSITORY
        }
        changed = await asyncio.to_thread(
            self._stamp_sources, frozenset(known.values()), is_said_whole=is_said_whole
        )
        stamps = {id_: (pair[0], changed[pair]) for id_, pair in known.items() if pair in changed}
        if stamps:
            words = await self._controller.submit(events.SourcesStamped(stamps))
            for line in words:
                logger.info("local files: %s", line)
