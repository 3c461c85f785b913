from __future__ import annotations

import pytest

from meshserve.core.llm import hold_queue
from meshserve.core.values import llm_spec

LIMITS = llm_spec.HoldLimits(requests_max=2, bytes_max=100, wait_s_max=10.0)


@pytest.fixture
def waiting():
    made = hold_queue.HoldQueue()
    made.add(hold_queue.HeldRequest("first", 10, 0.0))
    made.add(hold_queue.HeldRequest("second", 50, 5.0))
    yield made
    made.check(LIMITS)


def test_they_are_taken_in_the_order_in_which_they_came(waiting):
    assert waiting.since_s == 0.0
    assert waiting.take_all() == ["first", "second"]
    assert (len(waiting), waiting.size_bytes, waiting.since_s) == (0, 0, None)


def test_whoever_leaves_is_not_counted_any_more(waiting):
    assert waiting.leave("first")
    assert not waiting.leave("first")
    assert "first" not in waiting
    assert (len(waiting), waiting.size_bytes, waiting.since_s) == (1, 50, 5.0)


def test_nobody_waits_twice(waiting):
    with pytest.raises(AssertionError):
        waiting.add(hold_queue.HeldRequest("first", 1, 6.0))


def test_no_more_wait_than_may(waiting):
    assert "2 requests wait" in waiting.refusal(LIMITS, 1)


def test_no_more_bytes_wait_than_may(waiting):
    waiting.leave("first")
    assert waiting.refusal(LIMITS, 50) == ""
    assert "50 bytes" in waiting.refusal(LIMITS, 51)


def test_nobody_waits_longer_than_may_be(waiting):
    assert waiting.take_overdue(LIMITS, 9.9) == []
    assert waiting.take_overdue(LIMITS, 10.0) == ["first"]
    assert [request.ticket for request in waiting] == ["second"]


def test_narrower_limits_send_the_last_ones_away(waiting):
    assert waiting.take_surplus(LIMITS) == []
    assert waiting.take_surplus(llm_spec.HoldLimits(1, 100)) == ["second"]
    assert waiting.take_surplus(llm_spec.HoldLimits(1, 5)) == ["first"]
