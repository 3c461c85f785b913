"""What the scripts share is in each of them, before it is used."""

from __future__ import annotations

import re

import pytest

from meshserve.gateway.lua import llm_script, shared, small_models

FUNCTION = re.compile(r"local function (\w+)")


@pytest.mark.parametrize("script", [small_models.SCRIPT, llm_script.SCRIPT])
def test_every_script_begins_with_what_is_shared_and_defines_nothing_twice(script):
    names = FUNCTION.findall(script)
    assert script.startswith(shared.SCRIPT)
    assert len(names) == len(set(names))
    for name in FUNCTION.findall(shared.SCRIPT):
        assert script.count(f"{name}(") > 1


@pytest.mark.parametrize("script", [small_models.SCRIPT, llm_script.SCRIPT])
def test_no_script_leaves_anything_in_the_common_space_but_what_envoy_calls(script):
    assert set(re.findall(r"^function (\w+)", script, re.MULTILINE)) <= {
        "envoy_on_request",
        "envoy_on_response",
    }


def test_the_words_of_the_scripts_are_those_of_the_routes():
    turns = set(
        re.findall(r'"x-mesh-turn", "([\w-]+)"', small_models.SCRIPT + llm_script.SCRIPT)
    ) | set(re.findall(r'limit, "([\w-]+)"', small_models.SCRIPT + llm_script.SCRIPT))
    assert turns == {shared.TOO_LARGE, shared.TOO_LARGE_FOR_LLM, shared.LLM, shared.ANSWERED}
    assert f'"{shared.MODEL_HEADER}"' in small_models.SCRIPT
    assert f'"{shared.TURN_HEADER}"' in shared.SCRIPT
