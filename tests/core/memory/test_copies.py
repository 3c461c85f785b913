from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core import backoff
from meshserve.core.memory import copies, copy_lifecycle
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import CopyPhase
from meshserve.core.values import model
from meshserve.core.values.model import Footprint

A = model.ModelId("a")


def test_a_refusal_keeps_the_kind_of_the_error_and_says_when_to_try_again() -> None:
    retry = backoff.Backoff(backoff.BackoffPolicy(base_s=2.0, cap_s=60.0))
    failure = copies.LoadFailure(errors.MissingExtra("install it"), retry)
    retry.record_failure(10.0)
    refusal = failure.refusal(11.5)
    assert type(refusal) is errors.MissingExtra
    assert (refusal.message, refusal.retry_after_s) == ("install it", 0.5)
    assert failure.refusal(12.0).retry_after_s is None


def fetched(need: int, load_s: float = 0.0) -> ev.ArtifactFetched:
    return ev.ArtifactFetched(
        A, 1, "k", Footprint(need), load_s, can_offload=True, load_timeout_s=7.0
    )


def test_a_copy_believes_its_artifact_until_a_load_has_measured_it() -> None:
    copy = copies.Copy("k", Footprint(1))
    copy.apply_artifact(fetched(5))
    assert (copy.need, copy.is_measured) == ((5, 0), False)
    assert (copy.can_offload, copy.load_timeout_s) == (True, 7.0)
    copy.apply_artifact(fetched(6, load_s=0.2))
    assert (copy.need, copy.load_s, copy.is_measured) == ((6, 0), 0.2, True)
    copy.apply_artifact(fetched(9))
    assert copy.need == (6, 0)
    copy.record_load(Footprint(8), 0.5, 7.0)
    assert (copy.need, copy.load_s) == ((8, 0), 0.5)


def test_a_copy_that_is_being_loaded_keeps_what_it_has_booked() -> None:
    copy = copies.Copy("k", Footprint(30), booked=Footprint(30))
    copy.apply_artifact(fetched(5))
    assert copy.need == (30, 0)


def test_an_offloaded_copy_needs_only_gpu_memory_to_come_back() -> None:
    copy = copies.Copy("k", Footprint(10, 40))
    assert copy.offloaded_need == (50, 0)
    copy.state, copy.booked = CopyPhase.QUEUED, copy.offloaded_need
    assert copy.is_queued_for_onload
    assert copy.is_in_memory
    assert copy.admission_need == (0, 40)


def test_a_load_needs_more_than_the_loaded_copy() -> None:
    assert copies.Copy("a", Footprint(50, 7), load_extra_bytes=20).admission_need == (70, 7)


@pytest.mark.parametrize("state", CopyPhase)
def test_absent_failed_queued_and_evicted_copies_are_not_in_memory(state: CopyPhase) -> None:
    assert copies.Copy("k", Footprint(1), state=state).is_in_memory == (
        state.value not in {"absent", "failed", "queued", "evicting"}
    )


@pytest.mark.parametrize("state", CopyPhase)
def test_only_unused_and_unpinned_copies_in_memory_are_idle(state: CopyPhase) -> None:
    copy = copies.Copy("k", Footprint(1), state=state)
    assert copy.is_idle == (state in copy_lifecycle.IDLE)
    copy.leases = 1
    assert not copy.is_idle
    copy.leases, copy.pins = 0, frozenset({A})
    assert not copy.is_idle
