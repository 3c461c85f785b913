from __future__ import annotations

from meshserve.worker.models import load_window, run_journal


def test_a_load_knows_whether_models_ran_meanwhile() -> None:
    journal = run_journal.RunJournal()
    window = load_window.LoadWindow(0.0, journal)
    with journal.running("the load itself"):
        assert not window.has_runs
        with journal.running("a model"):
            pass
        assert window.has_runs
    assert not load_window.LoadWindow(0.0, journal).has_runs
    with journal.running("a model"):
        assert load_window.LoadWindow(0.0, journal).has_runs
