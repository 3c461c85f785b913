"""Keep copies that may end this process out of it: run suspects alone, and refuse what is guilty.

The trial of a suspect is another copy of the same artifact, in a process of its own. The whole mesh
names a suspect by the key of the copy that would run in a worker.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, assert_never

from meshserve import errors
from meshserve.core.memory import copies, suspicions, version_choice
from meshserve.core.memory.copy_lifecycle import CopyPhase
from meshserve.core.memory.suspicions import CopyStanding
from meshserve.core.values import catalog, containment, model, process_death
from meshserve.worker.models import ailing_copies, dead_workers, loader, run_journal, run_watch

logger = logging.getLogger(__name__)

DEATH_TOLD_S = 60.0
"""How long a death is told with each report: long enough for a controller that restarts meanwhile,
and not so long that it hears of suspicions that have ended."""

OUT_OF_MEMORY = ("MemoryError", "_ArrayMemoryError", "numpy._core._exceptions._ArrayMemoryError")
"""What the errors of Python and NumPy for memory that is refused begin with."""

OUTSIDE = "SIGKILL"
OUTSIDE_KILLS = 2
"""Deaths by SIGKILL that convict a suspect: the first may be due to another program's memory."""


class Rebind(Protocol):
    """Has a model's artifact bound anew with its next request."""

    def __call__(self, id_: model.ModelId, *, keeps_copy: bool, is_replaced: bool) -> None:
        """Without `is_replaced` the model is only forgotten, and its requests are refused.

        With `keeps_copy` its present copy answers until the new one is loaded.
        """
        ...


class CopyTrials:
    """One worker's suspects and their trials.

    `records` are the copies of `Residency` by key, only read here; `rebind` is the host's, and
    `watch` knows the copies with runs that hang.
    """

    def __init__(
        self,
        journal: run_journal.RunJournal,
        records: Mapping[str, copies.Copy],
        rebind: Rebind,
        watch: run_watch.RunWatch,
        budget_bytes: int,
    ) -> None:
        self.watch = watch
        self.journal = journal
        self._deaths: collections.deque[tuple[float, containment.WorkerDeath]] = collections.deque()
        self._dead = dead_workers.DeadWorkers(journal)
        self._records = records
        self._rebind = rebind
        self._suspicions = suspicions.Suspicions()
        self._refused: dict[model.ModelId, str] = {}
        self.ailing = ailing_copies.AilingCopies(watch, budget_bytes, self._names)
        self._findings: dict[tuple[str, model.ModelId], str] = {}
        self._loop = asyncio.get_running_loop()

    # What is heard

    def look_for_deaths(self) -> None:
        """Suspect what ran in workers of this node that have died since the last call."""
        for death in self._dead.look():
            # A worker that ran nothing, and noted no signal, says nothing of any copy.
            if not (death.keys or death.signal):
                continue
            self._deaths.append((self._loop.time(), death))
            logger.warning(
                "worker %s (pid %d) has died%s; it ran %s",
                death.worker_id,
                death.pid,
                f" of {death.signal}" if death.signal else "",
                ", ".join(death.keys) or "no model",
            )
            for key in death.keys:
                self._suspect(key, containment.PROBATION.base_s)

    def suspect_hung(self, key: str) -> None:
        """Run a copy alone from now on, because a run of it hangs in a thread of this worker."""
        self.ailing.note_hung(key)
        self._suspect(key, containment.PROBATION.base_s)

    def note_memory(self, taken_bytes: int, *, is_loading: bool) -> None:
        """Run alone what has run again while this process took far more than its budget."""
        for key in self.ailing.note_memory(taken_bytes, is_loading=is_loading):
            self._suspect(key, containment.PROBATION.base_s)

    def recent_deaths(self) -> tuple[containment.WorkerDeath, ...]:
        """Return the deaths noticed here within the last DEATH_TOLD_S seconds."""
        while self._deaths and self._deaths[0][0] < self._loop.time() - DEATH_TOLD_S:
            self._deaths.popleft()
        return tuple(death for _, death in self._deaths)

    def apply(self, change: catalog.StandingChange) -> None:
        """Take over what the controller says of a copy."""
        match change:
            case containment.CopySuspected(key, probation_s):
                self._suspect(key, probation_s)
            case containment.SuspicionEnded(key):
                self._acquit(key)
            case containment.CopyQuarantined(key, _, reason):
                if self._suspicions.convict(key, reason):
                    self._rebind_all(key, loader.alone_key(key))
            case containment.QuarantineEnded(key):
                self._release(key)
            case _:
                assert_never(change)

    def _suspect(self, key: str, probation_s: float) -> None:
        # An earlier acquittal says nothing of this death.
        self._findings = {
            finding: reason
            for finding, reason in self._findings.items()
            if reason or finding[0] != key
        }
        if self._suspicions.suspect(key, self._loop.time(), probation_s):
            self._rebind_all(key)

    def _acquit(self, key: str) -> None:
        # The copy in this worker can't be used again while a run of it hangs.
        if key not in self.watch.hung and self._suspicions.acquit(key):
            logger.info("copy %s has run alone, and nothing died", key)
            # The copy that runs alone answers until the one in this process is loaded.
            self._rebind_all(loader.alone_key(key), keeps_copy=True)

    def _release(self, key: str) -> None:
        self._findings = {
            finding: reason for finding, reason in self._findings.items() if finding[0] != key
        }
        if self._suspicions.release(key, self._loop.time()):
            for id_ in [id_ for id_, refused in self._refused.items() if refused == key]:
                del self._refused[id_]
                self._rebind(id_, keeps_copy=False, is_replaced=True)

    def _rebind_all(self, *keys: str, keeps_copy: bool = False) -> None:
        # All names first: each of them that is bound anew changes the records.
        for id_ in [id_ for key in keys for id_ in self._names(key)]:
            # What a model was before its replacement has no declaration to be fetched by.
            is_previous = version_choice.is_previous(id_)
            if not (is_previous and keeps_copy):
                self._rebind(id_, keeps_copy=keeps_copy, is_replaced=not is_previous)

    def _names(self, key: str) -> tuple[model.ModelId, ...]:
        record = self._records.get(key)
        return tuple(record.names) if record is not None else ()

    # How copies are made

    def admit(self, id_: model.ModelId, recipe: loader.LoadRecipe) -> loader.LoadRecipe:
        """Return how to load the model now: by this recipe, or alone. Raises Quarantined.

        A model whose owner has it run in a process of its own can't end this one, so it goes on.
        """
        self._refused.pop(id_, None)
        if recipe.is_isolated:
            return recipe
        standing = self._suspicions.standing(recipe.key)
        if standing is CopyStanding.CLEAR:
            return recipe
        if standing is CopyStanding.QUARANTINED:
            self._refused[id_] = recipe.key
            reason = self._suspicions.reason(recipe.key)
            self._findings[recipe.key, version_choice.public_id(id_)] = reason
            raise errors.Quarantined(reason)
        return loader.isolated(recipe)

    def may_run_here(self, recipe: loader.LoadRecipe) -> bool:
        """Return whether the copy's code may run now, in this process or in its own."""
        self.look_for_deaths()
        return recipe.is_isolated or self._suspicions.standing(recipe.key) is CopyStanding.CLEAR

    # What becomes of trials

    def record_death(self, key: str, death: process_death.ProcessDeath) -> None:
        """Take in the death of a copy's own process, which convicts a suspect."""
        base = loader.tried_key(key)
        if base and death.cause == OUTSIDE:
            self._suspicions.count_kill(base)
        self.explain(key, errors.ModelDied(str(death)))

    def explain(self, key: str, error: errors.MeshError) -> errors.MeshError:
        """Return the error to answer instead of one that a copy's run or load has raised.

        It is another one if the copy's process has died of it and was the trial of a suspect.
        """
        base = loader.tried_key(key)
        is_hog = self.ailing.is_hog(base) and error.message.startswith(OUT_OF_MEMORY)
        if base and is_hog and isinstance(error, errors.ModelRaised):
            # Its process may take more than the worker's budget, and still that was too little.
            self._convict(base, key, f"it asks for more memory than there is: {error.message}")
            return errors.Quarantined(self._suspicions.reason(base))
        if not base or not isinstance(error, errors.ModelDied | errors.LoadDied):
            return error
        if error.message.startswith(process_death.STOPPED) and not is_over_memory(error):
            # Our own limit ended it, which shows nothing of what it did to the worker.
            self._suspect(base, containment.PROBATION.base_s)
            return error
        if OUTSIDE in error.message and self._suspicions.kills(base) < OUTSIDE_KILLS:
            # Envoy tries the request again; another kill then convicts.
            return errors.Unavailable(f"{error.message}; it is tried again")
        self._convict(base, key, error.message)
        return errors.Quarantined(self._suspicions.reason(base))

    async def load(
        self, recipe: loader.LoadRecipe, load: Callable[[], Awaitable[loader.LoadedCopy]]
    ) -> loader.LoadedCopy:
        """Return what `load` returns. It is tried again if a kill from outside ended a trial.

        Raises as `load` does, or Quarantined if the load ended the process of a trial.
        """
        while True:
            try:
                return await load()
            except errors.LoadDied as error:
                death = recipe.death_by(error)
                if death is None or not loader.tried_key(recipe.key):
                    raise
                self.record_death(recipe.key, death)
                # Tried again here: a retry by Envoy would meet the pause after a failed load.
                refusal = self.explain(recipe.key, error)
                if not isinstance(refusal, errors.Unavailable):
                    raise refusal from None

    def _convict(self, base: str, key: str, cause: str) -> None:
        reason = (
            f"the model is in quarantine, because it ends its process: {cause}; "
            "mend it, or try it again with `meshserve models release`"
        )
        if self._suspicions.convict(base, reason):
            ids = sorted(set(map(version_choice.public_id, self._names(key))))
            logger.error("copy %s of %s: %s", base, ", ".join(map(str, ids)), reason)
            self._findings.update({(base, id_): reason for id_ in ids})
            self._rebind_all(base, key)

    def end_probations(self) -> None:
        """Acquit suspects that have run alone for long enough, and have answered there."""
        now_s = self._loop.time()
        for key in self._suspicions.keys(CopyStanding.SUSPECT):
            trial = self._records.get(loader.alone_key(key))
            has_answered = trial and trial.state is CopyPhase.READY and trial.uses > 0
            is_over = self._suspicions.is_over(key, now_s) and key not in self.watch.hung
            if trial and has_answered and is_over:
                for id_ in trial.names:
                    self._findings[key, version_choice.public_id(id_)] = ""
                self._acquit(key)

    def findings(self, known: catalog.Catalog) -> tuple[containment.TrialEnded, ...]:
        """Return what was found here and the catalog does not say yet."""
        return tuple(
            containment.TrialEnded(key, id_, reason)
            for (key, id_), reason in self._findings.items()
            if not _says(known, key, id_, reason)
        )


def is_over_memory(error: errors.MeshError) -> bool:
    """Return whether a process was stopped because it took the memory of other models."""
    return error.message.startswith(f"{process_death.STOPPED}: {process_death.OVER_MEMORY}")


def _says(known: catalog.Catalog, key: str, id_: model.ModelId, reason: str) -> bool:
    if not reason:
        return key not in known.suspects
    quarantine = known.quarantines.get(key)
    return quarantine is not None and id_ in quarantine.ids
