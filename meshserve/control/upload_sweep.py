"""Remove uploaded files that no model has used for an hour."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from meshserve import tasks
from meshserve.control import controller
from meshserve.control.api import uploads
from meshserve.core.interfaces import cluster_control

PERIOD_S = 60.0
UNUSED_S = 3600.0
"""Longer than a load takes, after whose failure the files before it are served again."""

logger = logging.getLogger(__name__)


class UploadSweep:
    """One task that looks which folders of uploads no registered model names."""

    def __init__(
        self, controller_: controller.Controller, folder: Path, clock: cluster_control.Clock
    ) -> None:
        self._controller = controller_
        self._folder = folder
        self._clock = clock
        # Since when each folder has been seen unused, by its name. A new controller begins anew.
        self._unused_since_s: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def follow(self) -> None:
        """Look again and again until `close`; the registry must have been read."""
        if self._task is None:
            self._task = tasks.spawn(self._follow(), "unused uploads")

    def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()

    async def _follow(self) -> None:
        while True:
            await self._clock.sleep(PERIOD_S)
            try:
                await self.look()
            except OSError as error:
                logger.warning("unused uploads can't be removed: %s", error)

    async def look(self) -> None:
        """Remove what was unused at each look for `UNUSED_S`. Raises OSError."""
        kept, used, now_s = uploads.kept(self._folder), set(self._used()), self._clock.now_s()
        since_s = self._unused_since_s
        self._unused_since_s = {name: since_s.get(name, now_s) for name in kept if name not in used}
        for name, first_s in self._unused_since_s.items():
            if now_s - first_s >= UNUSED_S:
                before_s = time.time() - UNUSED_S
                await asyncio.to_thread(uploads.remove, self._folder, name, before_s)

    def _used(self) -> Iterator[str]:
        """Yield the folders' names in the URIs of all models, also of what a load has overridden.

        By name alone: the same folder may have another path since a restart.
        """
        for declared in self._controller.view().models:
            for spec in (declared.spec, *declared.spec.replaced):
                yield from uploads.DIGEST.findall(spec.uri)
