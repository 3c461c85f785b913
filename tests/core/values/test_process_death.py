"""How the end of a model's process is told."""

from __future__ import annotations

import pytest

from meshserve.core.values.process_death import ProcessDeath


@pytest.mark.parametrize(
    ("death", "cause", "sentence"),
    [
        (ProcessDeath("SIGSEGV"), "SIGSEGV", "the model's process was killed by SIGSEGV"),
        (ProcessDeath("signal 37"), "signal 37", "was killed by signal 37"),
        (ProcessDeath(exit_code=1), "exit code 1", "ended itself with exit code 1"),
        (ProcessDeath(), "exit code 0", "ended itself with exit code 0"),
        (ProcessDeath("SIGKILL", reason="too big"), "SIGKILL", "was stopped: too big"),
    ],
)
def test_a_death_is_told_by_its_signal_or_exit_code(
    death: ProcessDeath, cause: str, sentence: str
) -> None:
    assert death.cause == cause
    assert sentence in str(death)
