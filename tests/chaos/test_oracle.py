"""What the oracle takes for right: contents in their time, and failures that a fault excuses."""

from __future__ import annotations

import numpy as np
import pytest

from tests.chaos import oracle

X = np.array([[1.0, -2.5]], np.float32)


class Watch:
    """A clock that a test sets."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def subject(watch: Watch) -> oracle.Subject:
    return oracle.Subject("m", 2, watch)


def outcome(subject: oracle.Subject, sent_s: float, **fields: object) -> oracle.Outcome:
    shown = {"ended_s": sent_s + 1, **fields}
    return oracle.Outcome(subject, "grpc", X, sent_s, **shown)  # type: ignore[arg-type]


def judged(watch: Watch, shown: oracle.Outcome) -> oracle.Judge:
    judge = oracle.Judge(watch)
    judge.decide(shown)
    return judge


def test_a_content_is_right_from_its_change_to_the_acknowledgement_of_the_next(
    watch: Watch, subject: oracle.Subject
) -> None:
    watch.now_s = 10
    subject.begin(3)
    watch.now_s = 20
    subject.settle(grace_s=5)
    assert subject.allowed(0, 9) == {2}
    assert subject.allowed(8, 12) == {2, 3}
    assert subject.allowed(24, 25) == {2, 3}
    assert subject.allowed(25, 26) == {3}


def test_an_earlier_end_is_not_moved_by_a_later_change(
    watch: Watch, subject: oracle.Subject
) -> None:
    subject.begin(3)
    subject.settle()
    watch.now_s = 10
    subject.begin(4)
    subject.settle(grace_s=10)
    assert subject.allowed(11, 12) == {3, 4}


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        (X * 2, True),
        (X * 3, False),
        (np.array([[2.0, -5.1]], np.float32), False),
        (X[:, :1] * 2, False),
        (X * np.nan, False),
    ],
)
def test_every_value_of_an_answer_counts(
    watch: Watch, subject: oracle.Subject, answer: np.ndarray, *, is_right: bool
) -> None:
    judge = judged(watch, outcome(subject, 0, answer=answer))
    assert (judge.answered, len(judge.wrong)) == (int(is_right), int(not is_right))


def test_a_model_that_is_deleted_must_be_missing(watch: Watch, subject: oracle.Subject) -> None:
    subject.begin(oracle.ABSENT)
    watch.now_s = 5
    subject.settle()
    missing = judged(watch, outcome(subject, 6, status="404"))
    stale = judged(watch, outcome(subject, 6, answer=X * 2))
    assert (missing.answered, missing.failures, stale.wrong) == (1, [], stale.wrong)
    assert len(stale.wrong) == 1


def test_a_failure_needs_an_excuse_of_its_time_status_and_model(
    watch: Watch, subject: oracle.Subject
) -> None:
    judge = oracle.Judge(watch)
    watch.now_s = 10
    allowance = judge.allow("kill", 5, frozenset({"503"}))
    other = judge.allow("kill isolated", 5, frozenset({"500"}), "another")
    for sent_s, status in ((8, "503"), (9.5, "503"), (15, "503"), (16, "503"), (12, "500")):
        judge.decide(outcome(subject, sent_s, status=status))
    assert (allowance.failed, other.failed, len(judge.failures)) == (2, 0, 3)


def test_a_slow_request_counts_for_each_fault_that_it_met(
    watch: Watch, subject: oracle.Subject
) -> None:
    judge = oracle.Judge(watch)
    first, second = judge.allow("stop", 5), judge.allow("poison", 5)
    watch.now_s = 20
    late = judge.allow("kill", 5)
    judge.decide(outcome(subject, 3, ended_s=7, answer=X * 2))
    assert (first.slowest_s, second.slowest_s, late.slowest_s) == (4, 4, 0)
