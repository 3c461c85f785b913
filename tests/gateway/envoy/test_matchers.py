"""The shapes of look-ups; that Envoy takes them is what test_routes and test_llm_routes show."""

from __future__ import annotations

from meshserve.gateway.envoy import matchers

END = matchers.action({"route": {"cluster": "a"}})
OTHER = matchers.lookup("exact_match_map", "x", {"1": END}, None)


def test_an_empty_look_up_is_left_out():
    assert matchers.lookup("exact_match_map", "y", {}, OTHER) is OTHER


def test_what_is_not_found_is_looked_for_in_the_next():
    found = matchers.lookup("prefix_match_map", ":path", {"/": END}, OTHER)
    assert found["matcher_tree"]["prefix_match_map"] == {"map": {"/": END}}
    assert found["on_no_match"] == {"matcher": OTHER}
    assert "on_no_match" not in OTHER


def test_a_header_decides_between_two_ends():
    other = matchers.action({"route": {"cluster": "b"}})
    found = matchers.if_present("x", END, other)["matcher"]
    assert (found["matcher_list"]["matchers"][0]["on_match"], found["on_no_match"]) == (END, other)
