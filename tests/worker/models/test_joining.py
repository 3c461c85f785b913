from __future__ import annotations

import pytest

from meshserve.core.values import model
from meshserve.worker.models import joining
from meshserve.worker.models.joining import JoinState


def verdict(batching: bool | None, *, has_rows: bool, can_join: bool) -> JoinState:
    signature = model.Signature((), (), has_batch_dimension=has_rows, can_join=can_join)
    spec = model.ModelSpec(model.ModelId("m"), "", batching=batching)
    return joining.first_verdict(signature, spec).state


@pytest.mark.parametrize(
    ("batching", "has_rows", "can_join", "expected"),
    [
        (None, True, True, JoinState.JOINED),
        (None, True, False, JoinState.UNPROVEN),
        (None, False, False, JoinState.NEVER),
        (False, True, True, JoinState.NEVER),
    ],
)
def test_joining_begins_as_the_signature_and_the_owner_say(
    batching: bool | None, has_rows: bool, can_join: bool, expected: JoinState
) -> None:
    assert verdict(batching, has_rows=has_rows, can_join=can_join) is expected


def test_one_proof_is_begun_where_joining_would_pay() -> None:
    joined = joining.Joining(JoinState.UNPROVEN)
    assert not joined.begin_proof()
    joined.note_demand()
    assert joined.begin_proof()
    joined.note_demand()
    assert not joined.begin_proof()
    joined.end_proof(None)
    assert joined.is_on
    assert joined.is_learned


def test_a_proof_that_fails_or_is_given_up_joins_nothing() -> None:
    joined = joining.Joining(JoinState.PROVING)
    joined.give_up_proof("gone")
    assert (joined.is_on, joined.is_learned, joined.reason) == (False, False, "gone")
    joined.end_proof("LSTM")
    assert (joined.is_on, joined.is_learned, joined.reason) == (False, True, "LSTM")


def test_the_first_runs_are_repeated_whole_and_later_ones_in_samples() -> None:
    joined = joining.Joining(JoinState.JOINED)
    counts = [joined.count_run() for _ in range(2 * joining.SAMPLED_EVERY)]
    assert counts[: joining.FIRST_RUNS] == [-1] * joining.FIRST_RUNS
    assert sorted(counts[joining.FIRST_RUNS :])[-2:] == [joining.SAMPLED_REQUESTS] * 2
    assert sum(count > 0 for count in counts) == 2


def test_a_stop_is_told_once_and_outlives_the_copy() -> None:
    joined = joining.Joining(JoinState.JOINED)
    assert not joined.take_stop()
    joined.stop("other")
    assert [joined.take_stop(), joined.take_stop()] == [True, False]
    again = joined.for_new_copy()
    assert (again.state, again.reason, again.take_stop()) == (JoinState.STOPPED, "other", False)
