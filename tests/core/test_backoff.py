from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.core import backoff

POLICY = backoff.BackoffPolicy(base_s=1.0, cap_s=10.0, calm_s=60.0)
EAGER = backoff.BackoffPolicy(base_s=1.0, cap_s=10.0, is_first_immediate=True)


@pytest.mark.parametrize(
    ("policy", "waits_s"),
    [(POLICY, [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]), (EAGER, [0.0, 1.0, 2.0, 4.0, 8.0, 10.0])],
)
def test_waits_double_up_to_the_cap(policy: backoff.BackoffPolicy, waits_s: list[float]) -> None:
    assert [policy.wait_s(failures) for failures in range(1, 7)] == waits_s


@given(st.integers(1, 10**9))
def test_no_number_of_failures_overflows(failures: int) -> None:
    assert 0 < POLICY.wait_s(failures) <= POLICY.cap_s


def test_the_next_try_is_due_after_the_wait() -> None:
    tries = backoff.Backoff(POLICY)
    assert tries.is_due(0.0)
    tries.record_failure(100.0)
    assert not tries.is_due(100.9)
    assert tries.is_due(101.0)


def test_a_long_success_ends_the_row_of_failures() -> None:
    tries = backoff.Backoff(POLICY, failures=5)
    tries.record_failure(100.0, ran_s=60.0)
    assert (tries.failures, tries.retry_at_s) == (6, 110.0)
    tries.record_failure(200.0, ran_s=60.1)
    assert (tries.failures, tries.retry_at_s) == (1, 201.0)


def test_a_reset_forgets_everything() -> None:
    tries = backoff.Backoff(POLICY)
    tries.record_failure(100.0)
    tries.reset()
    assert tries == backoff.Backoff(POLICY)
