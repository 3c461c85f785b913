"""Has one controller at a time write the registry: takes the lease, and gives signs of life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from meshserve import errors, tasks
from meshserve.control import registry_thread
from meshserve.core.catalog import lease_watch
from meshserve.core.interfaces import cluster_control, registry_store
from meshserve.core.values import registry_contents

LOOK_S = 0.5
RELEASE_S = 2.0
LOAD_S = 300.0
"""Far more than a registry of a million models takes to read."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseClaim:
    """With what a controller asks for the lease.

    `holder` is the id of this start of the mesh, the same for all of its controllers, and `about`
    says in words which mesh it is. With `is_patient` the registry is waited for, as a controller
    must that was started again; with `is_taking_over` it is taken from a mesh that lives.
    """

    holder: str
    about: str
    is_patient: bool = False
    is_taking_over: bool = False


class LeaseKeeper:
    """Takes the lease of a registry, and keeps it.

    `waits_for` says why the registry can't be used now, empty if it can. `is_known` is set once
    either has been found out.

    A registry is never written on the word of a clock: a holder that was stopped for long goes on
    unless another has taken its place, and then each of its writes fails.
    """

    def __init__(
        self, thread: registry_thread.RegistryThread, clock: cluster_control.Clock
    ) -> None:
        self.waits_for = ""
        self.is_known = asyncio.Event()
        self._thread = thread
        self._clock = clock
        self._beats: asyncio.Task[None] | None = None

    async def begin(self, claim: LeaseClaim) -> registry_contents.RegistryContents:
        """Take the lease, read the registry, and give signs of life from then on.

        Unless the claim is patient, raises Unavailable if another mesh writes the registry, and
        ConfigInvalid if the database can't be reached.
        """
        while True:
            try:
                await self._take(claim)
                # Without a limit: a registry may have a million models.
                contents = await self._thread.probe(self._thread.store.load, LOAD_S)
                break
            except errors.MeshError as error:
                if not claim.is_patient:
                    raise
                self._wait_for(error.message)
            await self._clock.sleep(LOOK_S)
        self.waits_for = ""
        self.is_known.set()
        self._beats = tasks.spawn(tasks.keep(self._beat, "lease"), "lease")
        return contents

    async def _take(self, claim: LeaseClaim) -> None:
        watch = lease_watch.LeaseWatch(claim.holder)
        while True:
            lease = await self._thread.probe(self._thread.store.read_lease)
            verdict = watch.look(lease, self._clock.now_s())
            if verdict is lease_watch.Verdict.FREE or claim.is_taking_over:
                if await self._take_as_seen(claim, lease):
                    return
            elif verdict is lease_watch.Verdict.ALIVE:
                # Raised also to one that is patient, which begins anew.
                raise errors.Unavailable(
                    f"{lease.about} writes this registry. End that mesh, or give this one a "
                    "registry of its own: `registry.url`, or another `state_dir`"
                )
            await self._clock.sleep(LOOK_S)

    async def _take_as_seen(self, claim: LeaseClaim, lease: registry_contents.WriteLease) -> bool:
        store = self._thread.store
        return await self._thread.probe(lambda: store.take_lease(claim.holder, claim.about, lease))

    def _wait_for(self, reason: str) -> None:
        if reason != self.waits_for:
            logger.warning("the controller waits for its registry: %s", reason)
        self.waits_for = reason
        self.is_known.set()

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(lease_watch.BEAT_S)
            try:
                await self._thread.probe(self._thread.store.renew_lease)
            except registry_store.LeaseLost:
                return
            except errors.MeshError as error:
                self._wait_for(error.message)
            else:
                self.waits_for = ""

    async def release(self) -> None:
        """Give no sign of life any more, and let the next mesh begin at once."""
        beats, self._beats = self._beats, None
        if beats is None:
            return
        beats.cancel()
        # If the database does not answer, the next mesh waits a few seconds.
        with contextlib.suppress(errors.MeshError):
            await self._thread.probe(self._thread.store.release_lease, RELEASE_S)
