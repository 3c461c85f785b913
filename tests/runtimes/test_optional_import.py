from __future__ import annotations

import json
import sys

import pytest

from meshserve import errors
from meshserve.runtimes import optional_import


def test_what_is_there_is_given():
    assert optional_import.require("json", "JSON", "json") is json


def test_what_is_missing_names_the_extra():
    with pytest.raises(
        errors.MissingExtra, match=r"needs Nothing: pip install 'meshserve\[nothing\]'"
    ):
        optional_import.require("no_such_library.inner", "Nothing", "nothing")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("raise ImportError('a shared object is missing')", "shared object"),
    ],
)
def test_what_is_broken_says_why(tmp_path, monkeypatch, source, reason):
    (tmp_path / "broken_library.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(errors.LoadFailed, match=f"Broken can't be imported: .*{reason}") as failed:
        optional_import.require("broken_library", "Broken", "broken")
    assert type(failed.value) is errors.LoadFailed
    assert "broken_library" not in sys.modules
