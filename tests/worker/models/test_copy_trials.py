"""Which copies are kept out of the worker, by what is heard of deaths and trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.memory import copies, version_choice
from meshserve.core.memory.copy_lifecycle import CopyPhase
from meshserve.core.values import catalog, containment, model, process_death
from meshserve.worker.models import copy_trials, loader, run_journal, run_watch

A, B = model.ModelId("a"), model.ModelId("b")
KEY = "sha256:a/1"
SEGV = process_death.ProcessDeath(signal_name="SIGSEGV")
KILL = process_death.ProcessDeath(signal_name="SIGKILL")
OURS = process_death.ProcessDeath(signal_name="SIGKILL", reason="a call took longer than 1 s")


BUDGET_BYTES = 400 << 20


class Bench:
    """Trials with the records of one model's copies, and the orders to bind models anew."""

    def __init__(self) -> None:
        self.records: dict[str, copies.Copy] = {}
        self.bound: list[tuple[model.ModelId, bool, bool]] = []
        self.journal = run_journal.RunJournal()
        self.watch = run_watch.RunWatch()
        self.trials = copy_trials.CopyTrials(
            *(self.journal, self.records, self.rebind, self.watch), BUDGET_BYTES
        )

    def rebind(self, id_: model.ModelId, *, keeps_copy: bool, is_replaced: bool) -> None:
        self.bound.append((id_, keeps_copy, is_replaced))
        for record in self.records.values():
            record.names.discard(id_)

    def taken(self) -> list[tuple[model.ModelId, bool, bool]]:
        taken, self.bound = self.bound, []
        return taken

    def hold(self, key: str, *ids: model.ModelId, uses: float = 0.0) -> None:
        self.records[key] = copies.Copy(
            key, model.NO_BYTES, state=CopyPhase.READY, names=set(ids), uses=uses
        )

    def hear(self, *keys: str) -> None:
        """Let a worker of the node die that ran these copies."""
        deaths = [containment.WorkerDeath("other", 7, keys, "SIGSEGV")]
        self.trials._dead.look = lambda: [deaths.pop()] if deaths else []  # type: ignore[method-assign]
        self.trials.look_for_deaths()

    def admit(self, id_: model.ModelId = A, **fields: Any) -> loader.LoadRecipe:
        return self.trials.admit(id_, recipe(**fields))

    def pass_time(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        now_s = self.trials._loop.time() + seconds

        class Later:
            def time(self) -> float:
                return now_s

        monkeypatch.setattr(self.trials, "_loop", Later())


def recipe(**fields: Any) -> loader.LoadRecipe:
    artifact = model_runtime.Artifact(Path("/a"), "sha256:a", 1)
    spec = model.ModelSpec(A, "/a")
    runtime: Any = None
    return loader.LoadRecipe(KEY, spec, artifact, runtime, "cpu", **fields)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_what_ran_in_a_death_is_bound_to_a_copy_of_its_own(bench: Bench) -> None:
    previous = version_choice.previous_id(A)
    bench.hold(KEY, A, previous)
    assert bench.admit() == recipe()
    bench.hear(KEY)
    assert sorted(bench.taken()) == [(A, False, True), (previous, False, False)]
    alone = bench.admit()
    assert (alone.is_isolated, alone.key, alone.journal_key) == (True, f"{KEY}/alone", "")
    assert len(bench.trials.recent_deaths()) == 1


async def test_a_death_of_which_nothing_is_known_suspects_nobody(bench: Bench) -> None:
    bench.hold(KEY, A)
    bench.hear()
    assert (bench.taken(), bench.admit()) == ([], recipe())


async def test_a_load_that_was_ordered_before_the_death_does_not_begin(bench: Bench) -> None:
    bench.hold(KEY, A)
    assert bench.trials.may_run_here(recipe())
    bench.hear(KEY)
    assert not bench.trials.may_run_here(recipe())
    assert bench.trials.may_run_here(loader.isolated(recipe()))


async def test_a_model_that_runs_alone_by_its_owners_will_is_left_alone(bench: Bench) -> None:
    bench.hear(KEY)
    isolated = recipe(is_isolated=True)
    assert bench.trials.admit(A, isolated) is isolated
    died = errors.ModelDied(str(SEGV))
    assert bench.trials.explain(KEY, died) is died


async def test_a_trial_that_dies_convicts_and_every_model_of_the_copy_is_refused(
    bench: Bench,
) -> None:
    bench.hear(KEY)
    bench.hold(f"{KEY}/alone", A)
    error = bench.trials.explain(f"{KEY}/alone", errors.ModelDied(str(SEGV)))
    assert isinstance(error, errors.Quarantined)
    assert "killed by SIGSEGV" in error.message
    assert "meshserve models release" in error.message
    assert bench.taken() == [(A, False, True)]
    for id_ in (A, B):
        with pytest.raises(errors.Quarantined, match="killed by SIGSEGV"):
            bench.admit(id_)
    known = catalog.Catalog()
    findings = bench.trials.findings(known)
    assert [(ended.key, ended.id) for ended in findings] == [(KEY, A), (KEY, B)]
    known.apply(containment.CopyQuarantined(KEY, (A,), error.message))
    assert [ended.id for ended in bench.trials.findings(known)] == [B]


async def test_a_trial_that_dies_while_idle_or_loading_convicts_too(bench: Bench) -> None:
    bench.hear(KEY)
    bench.hold(f"{KEY}/alone", A)
    bench.trials.record_death(f"{KEY}/alone", SEGV)
    with pytest.raises(errors.Quarantined):
        bench.admit()
    other = "sha256:b/2"
    bench.trials.apply(containment.CopySuspected(other, 20.0))
    died = errors.LoadDied("exit code 3")
    assert isinstance(bench.trials.explain(f"{other}/alone", died), errors.Quarantined)


async def test_the_controllers_word_of_the_death_does_not_undo_a_conviction(bench: Bench) -> None:
    bench.hear(KEY)
    bench.hold(f"{KEY}/alone", A)
    bench.trials.record_death(f"{KEY}/alone", SEGV)
    bench.trials.apply(containment.CopySuspected(KEY, 20.0))
    assert len(bench.trials.findings(catalog.Catalog())) == 1
    with pytest.raises(errors.Quarantined):
        bench.admit()


async def test_one_kill_from_outside_is_tried_again_and_the_second_convicts(bench: Bench) -> None:
    bench.hear(KEY)
    bench.hold(f"{KEY}/alone", A)
    key, died = f"{KEY}/alone", errors.ModelDied(str(KILL))
    bench.trials.record_death(key, KILL)
    assert isinstance(bench.trials.explain(key, died), errors.Unavailable)
    bench.trials.record_death(key, KILL)
    assert isinstance(bench.trials.explain(key, died), errors.Quarantined)


async def test_a_process_that_we_stopped_convicts_nobody_and_prolongs_the_suspicion(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hear(KEY)
    bench.pass_time(monkeypatch, 15.0)
    died = errors.ModelDied(str(OURS))
    assert bench.trials.explain(f"{KEY}/alone", died) is died
    bench.hold(f"{KEY}/alone", A, uses=1.0)
    bench.pass_time(monkeypatch, 10.0)
    bench.trials.end_probations()
    assert bench.admit().is_isolated


async def test_a_process_that_takes_the_memory_of_others_is_convicted(bench: Bench) -> None:
    bench.hear(KEY)
    bench.hold(f"{KEY}/alone", A)
    hog = process_death.ProcessDeath(
        signal_name="SIGKILL",
        reason=f"{process_death.OVER_MEMORY} 900 MiB, and 100 MiB is the most",
    )
    error = bench.trials.explain(f"{KEY}/alone", errors.ModelDied(str(hog)))
    assert isinstance(error, errors.Quarantined)
    assert "it took 900 MiB" in error.message


async def test_a_suspect_is_acquitted_after_its_time_alone_and_an_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hear(KEY)
    bench.hold(f"{KEY}/alone", A, uses=1.0)
    bench.trials.end_probations()
    assert bench.admit().is_isolated
    bench.hold(f"{KEY}/alone", A, uses=0.0)
    bench.pass_time(monkeypatch, 21.0)
    bench.trials.end_probations()
    assert bench.admit().is_isolated
    bench.hold(f"{KEY}/alone", A, uses=1.0)
    bench.taken()
    bench.trials.end_probations()
    # Its copy in the other process answers until that in the worker is loaded.
    assert bench.taken() == [(A, True, True)]
    assert bench.admit() == recipe()
    known = catalog.Catalog([containment.CopySuspected(KEY, 20.0)])
    assert bench.trials.findings(known) == (containment.TrialEnded(KEY, A),)
    assert bench.trials.findings(catalog.Catalog()) == ()
    bench.hear(KEY)
    assert bench.trials.findings(known) == ()


async def test_the_controller_suspects_acquits_convicts_and_releases(bench: Bench) -> None:
    bench.hold(KEY, A)
    bench.trials.apply(containment.CopySuspected(KEY, 20.0))
    assert bench.taken() == [(A, False, True)]
    assert bench.admit().is_isolated
    bench.trials.apply(containment.SuspicionEnded(KEY))
    assert bench.admit() == recipe()
    bench.hold(KEY, A)
    bench.trials.apply(containment.CopyQuarantined(KEY, (A,), "SIGSEGV"))
    assert bench.taken() == [(A, False, True)]
    with pytest.raises(errors.Quarantined, match="SIGSEGV"):
        bench.admit()
    bench.trials.apply(containment.QuarantineEnded(KEY))
    assert bench.taken() == [(A, False, True)]
    assert bench.admit().is_isolated


async def test_deaths_are_told_for_a_minute(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.hear(KEY)
    bench.pass_time(monkeypatch, 59.0)
    assert len(bench.trials.recent_deaths()) == 1
    bench.pass_time(monkeypatch, 2.0)
    assert bench.trials.recent_deaths() == ()
