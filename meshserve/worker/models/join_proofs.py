"""Find out, copy by copy, whether requests may be joined, and remember it for the next load."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import cachetools

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.memory import copies
from meshserve.core.values import catalog, model
from meshserve.worker.models import joining, loader, resident_model, run_journal

IN_TRIAL = "it runs alone, as a suspect of the end of a process"

logger = logging.getLogger(__name__)

VERDICTS_MAX = 1 << 16
"""Copies of which is remembered whether their requests may be joined."""


class JoinProofs:
    """The proofs of one worker, and their verdicts by the keys of copies.

    `check_unchanged` raises a MeshError if the artifact is not that of the recipe's key. `judged`
    are the models of which was learned whether requests may share runs, since the last call of
    `take_judged`.
    """

    def __init__(
        self,
        storage: model_runtime.Storage,
        check_unchanged: Callable[[loader.LoadRecipe], Awaitable[None]],
        journal: run_journal.RunJournal | None = None,
    ) -> None:
        self.judged: set[model.ModelId] = set()
        self._stops: dict[str, str] = {}
        self._storage = storage
        self._check_unchanged = check_unchanged
        self._journal = journal or run_journal.RunJournal()
        # One at a time: a proof takes up to seconds of a core that predictions need.
        self._pool = ThreadPoolExecutor(1, "proof")
        self._verdicts: cachetools.LRUCache[str, joining.Joining] = cachetools.LRUCache(
            VERDICTS_MAX
        )

    def first_verdict(
        self, recipe: loader.LoadRecipe, signature: model.Signature
    ) -> joining.Joining:
        """Return how the joining of a copy begins that was just loaded."""
        tried_key = loader.tried_key(recipe.key)
        # A suspect is tried as it ran in the worker.
        verdict = self._verdicts.get(recipe.key) or self._verdicts.get(tried_key)
        if verdict is not None:
            return verdict.for_new_copy()
        verdict = joining.first_verdict(signature, recipe.spec)
        # Known at once, so users need not wait for requests that come together. No trial proves
        # anything: its many rows may take the memory of which the suspect is then convicted.
        reason = recipe.runtime.lacks_proof or (IN_TRIAL if tried_key else "")
        if verdict.state is joining.JoinState.UNPROVEN and reason:
            return joining.Joining(joining.JoinState.NEVER, reason)
        return verdict

    async def prove(
        self,
        recipe: loader.LoadRecipe,
        loaded: model_runtime.LoadedModel,
        joined: joining.Joining,
    ) -> None:
        """Find out whether the model keeps rows apart; the caller holds a lease until then."""
        try:
            await self._check_unchanged(recipe)
        except errors.MeshError as error:
            joined.give_up_proof(error.message)
            return
        artifact = recipe.stored
        # The proof reads the file, which the cache keeps for no small copy (`HELD_BYTES_MIN`).
        self._storage.hold(artifact)
        try:
            reason = await asyncio.get_running_loop().run_in_executor(
                self._pool, self._find_row_mixing, recipe, loaded
            )
        finally:
            self._storage.release(artifact)
        joined.end_proof(reason)
        self.remember(recipe.key, joined)
        logger.info(
            "%s: requests are %s", recipe.spec.id, f"not joined: {reason}" if reason else "joined"
        )

    def tell_stop(self, recipe: loader.LoadRecipe, joined: joining.Joining) -> None:
        """Log that the copy's requests are joined no more, and keep that for its next load."""
        self.remember(recipe.key, joined)
        self._stops[loader.tried_key(recipe.key) or recipe.key] = joined.reason
        logger.warning("%s: requests are joined no more: %s", recipe.spec.id, joined.reason)

    def adopt_stop(
        self,
        stop: catalog.JoiningStopped,
        find_resident: Callable[[str], resident_model.ResidentModel | None],
        records: Mapping[str, copies.Copy],
    ) -> None:
        """Join requests of a copy no more, as a worker of the mesh has told.

        It is kept for the next loads of the copy, also of the one that runs alone. `find_resident`
        returns a copy in memory by its key, and `records` are all copies.
        """
        # The whole mesh knows it now, so reports need not tell it any more.
        self._stops.pop(stop.key, None)
        for key in (stop.key, loader.alone_key(stop.key)):
            resident = find_resident(key)
            never = joining.Joining(joining.JoinState.NEVER)
            stopped = resident.batcher.joining if resident else never
            stopped.adopt_stop(stop.reason)
            self.remember(key, stopped)
            self.judged.update(records[key].names if key in records else ())

    def stops(self) -> tuple[catalog.JoiningStopped, ...]:
        """Return the stops that were found here and are not yet known to the whole mesh."""
        return tuple(itertools.starmap(catalog.JoiningStopped, self._stops.items()))

    def take_judged(self) -> set[model.ModelId]:
        """Return the models that were judged since the last call."""
        judged, self.judged = self.judged, set()
        return judged

    def remember(self, key: str, joined: joining.Joining) -> None:
        """Keep what was learned of joining by the copy's key, so that no load asks it again."""
        if joined.is_learned:
            self._verdicts[key] = joined

    def close(self) -> None:
        """Begin no more proofs."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _find_row_mixing(
        self, recipe: loader.LoadRecipe, loaded: model_runtime.LoadedModel
    ) -> str | None:
        try:
            # The proof runs the model's code, which may end the process.
            with self._journal.running(recipe.journal_key):
                return recipe.runtime.find_row_mixing(loaded, recipe.artifact, recipe.spec)
        except Exception as error:  # noqa: BLE001 a library may raise anything, which shows nothing
            return errors.words_of(error)
