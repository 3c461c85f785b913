"""Leases on the copy that answers for a name: of the newest version that loads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass

from meshserve import errors, tasks
from meshserve.core.memory import residency, version_choice
from meshserve.core.values import catalog_sync, model, model_stats, version_order
from meshserve.worker.models import resident_model

TRIAL_S = 120.0
"""The time of a trial whose model was withdrawn meanwhile."""

Lease = Callable[[model.ModelId, float], Awaitable[resident_model.ResidentModel]]


@dataclass(slots=True)
class ReadyModel:
    """A model whose copy is ready, and its uses that are not yet recorded in `Residency`."""

    id: model.ModelId
    held_id: model.ModelId  # of the copy, which may be that of before a replacement
    resident: resident_model.ResidentModel
    stats: model_stats.ModelStats
    uses: int = 0
    last_used_s: float = 0.0


class VersionLeases:
    """Finds the copies behind names, and has better ones loaded beside those that answer.

    `lease` and `load` are the host's, for one version. `find_earlier` returns the id of what a
    version was before, if the node's cache still has it.
    """

    def __init__(
        self,
        follower: catalog_sync.CatalogFollower,
        residency_: residency.Residency,
        lease: Lease,
        load: Callable[[model.ModelId, float], Awaitable[None]],
        find_earlier: Callable[[model.ModelId], Awaitable[model.ModelId | None]],
    ) -> None:
        self._follower = follower
        self._residency = residency_
        self._choice = version_choice.VersionChoice(residency_.bindings, residency_.copies)
        self._lease = lease
        self._load = load
        self._find_earlier = find_earlier
        self._trials: set[model.ModelId] = set()
        self._loop = asyncio.get_running_loop()

    def choose(
        self, name: str, version: str, refused: Container[model.ModelId] = ()
    ) -> version_choice.Choice | None:
        """Return what answers requests now, `refused` apart. Raises ModelNotFound."""
        versions = self._follower.catalog.candidates(name, version)
        superseded = self._residency.previous.superseded(versions[0].name)
        candidates = self._choice.candidates(versions, superseded)
        left = (id_ for id_ in candidates if id_ not in refused)
        if self._names_version(name, version):
            # What was removed answers for the name alone, also if its version was declared anew.
            left = (id_ for id_ in left if id_ not in superseded)
        return self._choice.choose(left, self._loop.time())

    def _names_version(self, name: str, version: str) -> bool:
        alias = self._follower.catalog.alias(name)
        return bool(version or (alias and alias.version))

    def is_superseded(self, id_: model.ModelId) -> bool:
        """Return whether a version that is withdrawn should answer until a newer one has loaded.

        Not if another version is known to load, and not if it was the newest: who removes that
        wants the older ones back.
        """
        others = [model.ModelId(id_.name, v) for v in self._follower.catalog.versions(id_.name)]
        now_s = self._loop.time()
        return any(
            version_order.sort_key(other.version) > version_order.sort_key(id_.version)
            for other in others
        ) and not any(
            self._choice.standing(other, now_s) is version_choice.Standing.GOOD for other in others
        )

    def is_ready(self, name: str, version: str) -> bool:
        """Return whether the last load of the version did not fail; before one it is ready.

        Without a version, what answers is meant, which may be an older one. Raises ModelNotFound,
        also for a model that the API has unloaded.
        """
        (id_, *_) = self._follower.catalog.candidates(name, version)
        if not version and (choice := self.choose(name, version)):
            id_ = choice.id
        binding = self._residency.bindings.get(id_)
        if binding is None:
            return True
        if binding.key is None:
            return binding.failure is None or binding.is_fetching
        return self._residency.copies[binding.key].failure is None

    def footprint(self, id_: model.ModelId) -> model.Footprint:
        """Return the memory booked for the model's copy."""
        bindings = self._residency.bindings
        binding = bindings.get(id_) or bindings.get(version_choice.previous_id(id_))
        if binding is None or binding.key is None:
            return model.NO_BYTES
        return self._residency.copies[binding.key].booked

    def pick(
        self, name: str, version: str, refused: Container[model.ModelId] = ()
    ) -> model.ModelId | None:
        """Return the id of the copy that answers, and load a better one beside it, if any.

        Raises ModelNotFound.
        """
        choice = self.choose(name, version, refused)
        if choice is None:
            return None
        if not version:
            choice = self._or_as_before(name, choice)
        # Each request comes here until the trial ends, and one load is enough.
        if choice.trial is not None and choice.trial not in self._trials:
            self._trials.add(choice.trial)
            tasks.spawn(self._try(choice.trial), f"trial of {choice.trial}")
        return choice.id

    def _or_as_before(self, name: str, choice: version_choice.Choice) -> version_choice.Choice:
        """Return the choice, or what an alias meant before if only that is known to load."""
        now_s = self._loop.time()
        standing = self._choice.standing(choice.id, now_s)
        if standing is not version_choice.Standing.GOOD:
            for id_ in self._meanings_before(name):
                held_id = self._held_id(id_)
                if self._choice.can_answer_now(held_id, now_s):
                    is_failed = standing is version_choice.Standing.FAILED
                    return version_choice.Choice(held_id, None if is_failed else choice.id)
        return choice

    def replace_soon(self, id_: model.ModelId) -> None:
        """Begin to load what was declared under this id if an older copy in memory answers for it.

        Otherwise the first request after a replacement, however late, would get the old answer.
        """
        with contextlib.suppress(errors.ModelNotFound):
            # Requests name the version or none, and an older copy may answer either.
            for version in (id_.version, ""):
                self.pick(id_.name, version)

    async def _try(self, id_: model.ModelId) -> None:
        declared = self._follower.catalog.declared(id_)
        timeout_s = declared.spec.load_timeout_s if declared else TRIAL_S
        try:
            # Residency keeps the error, and reports tell it.
            with contextlib.suppress(errors.MeshError):
                await self._load(id_, timeout_s)
        finally:
            self._trials.discard(id_)

    async def lease(
        self, name: str, version: str, expires_s: float
    ) -> tuple[model.ModelId, resident_model.ResidentModel]:
        """Return the id and the copy that answer, loaded first if need be; a `release` is owed.

        What an alias meant before answers if its model does not load. Raises as the host's `lease`:
        of several versions that fail, the first one's error.
        """
        try:
            return await self._lease_meaning(name, version, expires_s)
        except errors.LoadFailed:
            # Others say nothing against the model: another worker, or a later try, may answer.
            for id_ in () if version else self._meanings_before(name):
                with contextlib.suppress(errors.MeshError):
                    return await self._lease_earlier(id_, expires_s)
            raise

    def _meanings_before(self, name: str) -> tuple[model.ModelId, ...]:
        alias = self._follower.catalog.alias(name)
        return alias.before if alias is not None else ()

    async def _lease_earlier(
        self, id_: model.ModelId, expires_s: float
    ) -> tuple[model.ModelId, resident_model.ResidentModel]:
        """Return what an alias meant before, also if it is not declared any longer but is kept."""
        if (held_id := self._held_id(id_)) != id_:
            return held_id, await self._lease(held_id, expires_s)
        return await self._lease_meaning(id_.name, id_.version, expires_s)

    def _held_id(self, id_: model.ModelId) -> model.ModelId:
        """Return the id by which the version's copy is kept, another one if it was withdrawn."""
        kept = version_choice.previous_id(id_)
        return kept if kept in self._residency.previous.superseded(id_.name) else id_

    async def _lease_meaning(
        self, name: str, version: str, expires_s: float
    ) -> tuple[model.ModelId, resident_model.ResidentModel]:
        refused: dict[model.ModelId, errors.MeshError] = {}
        while (id_ := await self._pick_or_recall(name, version, refused)) is not None:
            try:
                return id_, await self._lease(id_, expires_s)
            except (errors.Overloaded, errors.DeadlineExceeded):
                # These say nothing against the version, so no other one is tried.
                raise
            except errors.MeshError as error:
                refused[id_] = error
        # What a model was before its replacement has no error that a user would understand, and a
        # version that was removed meanwhile is not what is wrong with those that remain.
        chosen = min(
            refused,
            key=lambda id_: (
                version_choice.is_previous(id_),
                isinstance(refused[id_], errors.ModelNotFound),
            ),
        )
        raise refused[chosen]

    async def _pick_or_recall(
        self, name: str, version: str, refused: Container[model.ModelId]
    ) -> model.ModelId | None:
        """Return the id of the copy that answers; if all refuse, that of an earlier content."""
        if (id_ := self.pick(name, version, refused)) is not None:
            return id_
        for candidate in self._follower.catalog.candidates(name, version):
            earlier = await self._find_earlier(candidate)
            if earlier is not None and earlier not in refused:
                return earlier
        return None
