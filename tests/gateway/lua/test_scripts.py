"""Every Lua file compiles, and the scripts are complete. What they do is tested in a real Envoy."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

import lupa.luajit21
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.gateway.envoy import lua_filter
from meshserve.gateway.lua import scripts

FILES = sorted(
    file.name.removesuffix(".lua")
    for file in importlib.resources.files("meshserve.gateway.lua").iterdir()
    if file.name.endswith(".lua")
)


@pytest.fixture
def lua() -> Any:
    # Bytes, because bodies are: the scripts never take them for text.
    return lupa.luajit21.LuaRuntime(encoding=None)


def test_the_files_are_those_of_two_scripts_and_what_they_share() -> None:
    assert FILES == ["json_scan", "llm", "shared", "small_models"]


@pytest.mark.parametrize("file", FILES)
def test_every_file_compiles(lua: Any, file: str) -> None:
    lua.compile(scripts.read(file).encode())


@pytest.mark.parametrize(
    ("script", "functions"),
    [
        ("small_models", {b"envoy_on_request", b"envoy_on_response"}),
        ("llm", {b"envoy_on_request"}),
    ],
)
def test_a_script_defines_what_envoy_calls_and_no_other_global(
    lua: Any, script: str, functions: set[bytes]
) -> None:
    before = set(lua.globals())
    lua.execute(scripts.source(script, lua_filter.CONSTANTS).encode())
    assert set(lua.globals()) - before == functions


def test_every_constant_is_used() -> None:
    text = "".join(map(scripts.read, FILES))
    assert [name for name in lua_filter.CONSTANTS if f"constants.{name}" not in text] == []


MODULES = """
local constants = {}
local shared = (function() %s end)()
return (function() %s end)()
"""


@given(st.dictionaries(st.sampled_from(["model", "m", "messages"]), st.text(max_size=9)))
def test_the_scan_finds_what_pythons_json_finds(body: dict[str, str]) -> None:
    runtime = lupa.luajit21.LuaRuntime(encoding=None)
    text = MODULES % (scripts.read("shared"), scripts.read("json_scan"))
    result = runtime.execute(text.encode())[b"model_in_json"](json.dumps(body).encode())
    name = result[0] if isinstance(result, tuple) else result
    assert (name or b"") == body.get("model", "").encode()
