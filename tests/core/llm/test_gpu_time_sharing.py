from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.llm import gpu_time_sharing
from meshserve.core.llm.gpu_time_sharing import GroupMember

UP = GroupMember("up", "up", since_s=100.0, residency_s_min=30.0)
ASKED = GroupMember("asked", "away", asked_s=110.0)


def test_the_first_that_is_to_be_kept_begins():
    assert (
        gpu_time_sharing.turn(
            [
                GroupMember("a", "away"),
                GroupMember("b", "away", is_kept=True),
                GroupMember("c", "away", is_kept=True),
            ],
            "",
            0.0,
        )
        == "b"
    )
    assert gpu_time_sharing.turn([GroupMember("a", "away")], "", 0.0) == ""


def test_who_is_up_stays_while_nobody_else_is_asked_for():
    assert gpu_time_sharing.turn([ASKED._replace(asked_s=None), UP], "up", 9999.0) == "up"


def test_who_is_up_stays_for_its_time_whoever_is_asked_for():
    assert gpu_time_sharing.turn([ASKED, UP], "up", 129.9) == "up"
    assert gpu_time_sharing.turn([ASKED, UP], "up", 130.0) == "asked"


def test_who_comes_up_is_not_overtaken():
    assert gpu_time_sharing.turn([ASKED, UP._replace(stage="coming")], "up", 9999.0) == "up"


def test_whose_turn_is_still_to_come_keeps_it_while_asked_for():
    assert gpu_time_sharing.turn([UP._replace(asked_s=90.0), ASKED], "asked", 9999.0) == "asked"


def test_a_turn_that_nobody_wants_any_more_goes_to_who_is_up_still():
    assert (
        gpu_time_sharing.turn([ASKED._replace(asked_s=None, is_kept=True), UP], "asked", 9999.0)
        == "up"
    )


def test_who_failed_makes_way_for_who_is_asked_for_and_else_tries_again():
    failed = UP._replace(stage="failed", asked_s=90.0)
    assert gpu_time_sharing.turn([ASKED, failed], "up", 0.0) == "asked"
    assert gpu_time_sharing.turn([ASKED._replace(asked_s=None), failed], "up", 0.0) == "up"


def test_who_was_asked_for_first_comes_next():
    later = GroupMember("later", "away", asked_s=111.0)
    assert gpu_time_sharing.turn([later, ASKED, UP], "up", 130.0) == "asked"


def test_of_two_asked_for_at_once_the_least_recently_used_comes_next():
    older = GroupMember("older", "away", asked_s=110.0, used_s=5.0)
    assert gpu_time_sharing.turn([ASKED._replace(used_s=6.0), older, UP], "up", 130.0) == "older"


def test_who_had_the_turn_and_is_to_be_kept_has_it_again():
    members = [GroupMember("a", "away", is_kept=True), GroupMember("b", "away", is_kept=True)]
    assert gpu_time_sharing.turn(members, "b", 0.0) == "b"
    assert gpu_time_sharing.turn(members, "gone", 0.0) == "a"


STAGES = st.sampled_from(["away", "coming", "up", "failed"])
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
    unique_by=lambda each: each.name,
)


@given(MEMBERS, st.sampled_from(["", "a", "b", "z"]), TIMES)
def test_the_turn_is_a_members_and_does_not_change_again_at_once(members, current, now_s):
    chosen = gpu_time_sharing.turn(members, current, now_s)
    assert chosen in {each.name for each in members} | {""}
    assert (chosen == "") <= (not any(each.asked_s is not None for each in members))
