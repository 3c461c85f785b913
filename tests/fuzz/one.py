"""Fuzz one target under atheris: `python -m tests.fuzz.one TARGET [libFuzzer's words]`."""

from __future__ import annotations

import importlib
import sys
from typing import Any

# A package of its own extra: it has wheels for few platforms.
atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["meshserve"]):
    from tests.fuzz import targets

if __name__ == "__main__":
    target = targets.TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
