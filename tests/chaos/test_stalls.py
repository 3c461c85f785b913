"""The beat that tells a machine that stood still from a mesh that failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import support
from tests.chaos import oracle, run, stalls

STALL = stalls.Stall(10.0, 12.0)


def test_beats_too_far_apart_are_stalls() -> None:
    assert list(stalls.late_beats([0, 0.1, 2.1, 2.2])) == [stalls.Stall(0.1, 2.1)]


@pytest.mark.edge
def test_a_kept_beat_ends_with_its_block(tmp_path: Path) -> None:
    path = tmp_path / "stalls"
    with stalls.watched(path):
        support.wait_until(path.exists)
    assert all(stall.end_s - stall.begin_s > stalls.STALL_S for stall in stalls.read(path))


@pytest.mark.parametrize(
    ("begin_s", "end_s", "is_apart"),
    [(8, 9, False), (8, 10, True), (11, 11, True), (22, 23, True), (22.1, 23, False)],
)
def test_failures_near_a_stall_are_counted_apart(
    begin_s: float, end_s: float, *, is_apart: bool
) -> None:
    judge = oracle.Judge(clock=lambda: end_s)
    judge.complain("no answer", begin_s)
    judge.set_apart([STALL])
    assert (len(judge.failures), len(judge.stalled)) == (int(not is_apart), int(is_apart))


@pytest.mark.parametrize(("failed", "is_fault"), [(2, False), (3, True)])
def test_a_stall_excuses_few_failures(failed: int, *, is_fault: bool) -> None:
    judge = oracle.Judge(answered=100, clock=lambda: STALL.end_s)
    for _ in range(failed):
        judge.complain("no answer")
    judge.set_apart([STALL])
    verdict = run.Verdict(run.Order(), judge, {}, [], [], [STALL])
    assert bool(verdict.faults()) == is_fault


def test_a_stall_excuses_no_wrong_answer_and_no_leak() -> None:
    judge = oracle.Judge(clock=lambda: STALL.end_s)
    ones = np.ones((1, 8), np.float32)
    asked = oracle.Outcome(oracle.Subject("m", 2), "grpc", ones, 11, 11.5, answer=ones)
    judge.decide(asked)
    judge.set_apart([STALL])
    verdict = run.Verdict(run.Order(), judge, {}, ["a process"], [], [STALL])
    assert len(verdict.faults()) == 2
