"""The real controller and workers in simulated time, by seeds (docs/decisions/0186)."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

QUICK_SEEDS = 8
SEEDS = 600
"""Two cores take some 100 s for them."""

WAIT_S = 480.0


def run(first: int, last: int) -> str:
    """Simulate seeds in a process of their own; return what it prints if all went well."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.run", str(first), str(last)],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    return done.stdout


def test_a_few_seeds_keep_every_promise() -> None:
    assert f"'seeds': {QUICK_SEEDS}" in run(1, QUICK_SEEDS)


def test_a_seed_replays_exactly() -> None:
    traces = {tuple(re.findall(r"digest of 7: \w+", run(7, 7))) for _ in range(2)}
    assert len(traces) == 1
    assert traces != {()}


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_many_seeds_keep_every_promise() -> None:
    assert f"'seeds': {SEEDS}" in run(1, SEEDS)
