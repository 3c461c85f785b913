from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.llm.gpu_time_sharing import GroupMember, next_turn

UP = GroupMember("up", "up", up_s=100.0, residency_s_min=30.0)
REQUESTED = GroupMember("requested", "down", requested_s=110.0)
NOT_REQUESTED = REQUESTED._replace(requested_s=None)


def test_the_first_member_that_is_always_on_begins() -> None:
    members = [
        GroupMember("a", "down"),
        GroupMember("b", "down", is_always_on=True),
        GroupMember("c", "down", is_always_on=True),
    ]
    assert next_turn(members, "", 0.0) == "b"
    assert next_turn(members[:1], "", 0.0) == ""


def test_the_member_that_is_up_stays_while_no_other_is_requested() -> None:
    assert next_turn([NOT_REQUESTED, UP], "up", 9999.0) == "up"


def test_the_member_that_is_up_stays_for_its_residency_time() -> None:
    assert next_turn([REQUESTED, UP], "up", 129.9) == "up"
    assert next_turn([REQUESTED, UP], "up", 130.0) == "requested"


def test_a_member_that_comes_up_keeps_its_turn() -> None:
    assert next_turn([REQUESTED, UP._replace(stage="coming up")], "up", 9999.0) == "up"


def test_a_member_keeps_a_turn_that_has_not_begun_while_it_is_requested() -> None:
    assert next_turn([UP._replace(requested_s=90.0), REQUESTED], "requested", 9999.0) == "requested"


def test_a_turn_that_is_not_needed_any_more_goes_to_the_member_that_is_still_up() -> None:
    always_on = NOT_REQUESTED._replace(is_always_on=True)
    assert next_turn([always_on, UP], "requested", 9999.0) == "up"


def test_a_failed_member_makes_way_for_a_requested_one_and_else_tries_again() -> None:
    failed = UP._replace(stage="failed", requested_s=90.0)
    assert next_turn([REQUESTED, failed], "up", 0.0) == "requested"
    assert next_turn([NOT_REQUESTED, failed], "up", 0.0) == "up"


def test_the_member_that_was_requested_first_comes_next() -> None:
    later = GroupMember("later", "down", requested_s=111.0)
    assert next_turn([later, REQUESTED, UP], "up", 130.0) == "requested"


def test_of_two_requested_at_once_the_least_recently_used_comes_next() -> None:
    older = GroupMember("older", "down", requested_s=110.0, used_s=5.0)
    assert next_turn([REQUESTED._replace(used_s=6.0), older, UP], "up", 130.0) == "older"


def test_a_member_that_had_the_turn_and_is_always_on_gets_it_again() -> None:
    members = [GroupMember(name, "down", is_always_on=True) for name in "ab"]
    assert next_turn(members, "b", 0.0) == "b"
    assert next_turn(members, "gone", 0.0) == "a"


STAGES = st.sampled_from(["down", "coming up", "up", "failed"])
TIMES = st.floats(0, 200)
MEMBERS = st.lists(
    st.builds(
        GroupMember,
        st.sampled_from("abc"),
        STAGES,
        TIMES,
        TIMES,
        TIMES,
        st.none() | TIMES,
        st.booleans(),
    ),
    unique_by=lambda member: member.name,
)


@given(MEMBERS, st.sampled_from(["", "a", "b", "z"]), TIMES)
def test_the_turn_goes_to_a_member_and_to_none_only_without_requests(
    members: list[GroupMember], current: str, now_s: float
) -> None:
    chosen = next_turn(members, current, now_s)
    assert chosen in {member.name for member in members} | {""}
    is_requested = any(member.requested_s is not None for member in members)
    assert (chosen == "") <= (not is_requested)
