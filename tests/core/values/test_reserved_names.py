from __future__ import annotations

import pytest

from meshserve.core.values import reserved_names


@pytest.mark.parametrize("name", ["stats", ".", ".."])
def test_names_with_another_meaning_in_paths_are_refused(name: str) -> None:
    assert reserved_names.reason_against(name).startswith(f"nothing can be called {name!r}: ")


@pytest.mark.parametrize(
    "name", ["Stats", "stats2", "...", ".hidden", "index", "ready", "load", "versions", "infer"]
)
def test_all_other_words_of_the_api_may_be_names(name: str) -> None:
    assert reserved_names.reason_against(name) == ""
