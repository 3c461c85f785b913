"""Assemble the text of the Lua scripts that Envoy runs.

Envoy can't load Lua modules, so the modules that a script needs, and the constants that it shares
with Python, are put in front of it in one text.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping

_MODULES = {"small_models": ("shared",), "llm": ("shared", "json_scan")}


def source(script: str, constants: Mapping[str, str | int]) -> str:
    """Return the text of `small_models` or `llm`, in which `constants.NAME` has these values."""
    modules = (f"local {name} = (function()\n{read(name)}end)()\n" for name in _MODULES[script])
    return "".join((_table(constants), *modules, read(script)))


def read(file: str) -> str:
    """Return the text of one Lua file of this folder, named without its suffix."""
    return (importlib.resources.files(__package__) / f"{file}.lua").read_text(encoding="utf-8")


def _table(constants: Mapping[str, str | int]) -> str:
    # Numbers and printable ASCII are written alike in JSON and in Lua.
    entries = "".join(f"  {name} = {json.dumps(value)},\n" for name, value in constants.items())
    return f"local constants = {{\n{entries}}}\n"
