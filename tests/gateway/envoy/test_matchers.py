"""The shapes of look-ups. test_routes and test_llm_routes show that Envoy takes them."""

from __future__ import annotations

from typing import Any

from meshserve.gateway.envoy import matchers

END: Any = matchers.action({"route": {"cluster": "a"}})
OTHER: Any = matchers.exact("x", {"1": END}, None)


def test_an_empty_look_up_is_left_out() -> None:
    assert matchers.exact("y", {}, OTHER) is OTHER


def test_a_failed_look_up_goes_on_to_the_next() -> None:
    tree: Any = matchers.exact(":path", {"/": END}, OTHER)
    assert tree["matcher_tree"]["exact_match_map"] == {"map": {"/": END}}
    assert tree["on_no_match"] == {"matcher": OTHER}
    assert "on_no_match" not in OTHER


def test_a_header_decides_between_two_ends() -> None:
    other = matchers.action({"route": {"cluster": "b"}})
    choice: Any = matchers.if_present("x", END, other)["matcher"]
    assert (choice["matcher_list"]["matchers"][0]["on_match"], choice["on_no_match"]) == (
        END,
        other,
    )


def test_the_last_look_up_has_no_next() -> None:
    tree: Any = matchers.longest_prefix(":path", {"/": END})
    assert tree["matcher_tree"]["prefix_match_map"] == {"map": {"/": END}}
    assert "on_no_match" not in tree
