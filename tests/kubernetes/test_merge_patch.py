from __future__ import annotations

from typing import Any

import pytest

from meshserve.kubernetes import merge_patch


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        (
            {"a": [{"name": "x", "b": 1}, {"name": "y"}]},
            {"a": [{"name": "x", "c": 2}, {"name": "z"}]},
            {"a": [{"name": "x", "b": 1, "c": 2}, {"name": "y"}, {"name": "z"}]},
        ),
        (
            {"a": [{"groupName": "x", "b": {"c": 1}}]},
            {"a": [{"groupName": "x", "b": {"c": None}}]},
            {"a": [{"groupName": "x", "b": {}}]},
        ),
        ({"a": [{"name": "x"}]}, {"a": []}, {"a": []}),
        ({"a": [{"name": "x"}]}, {"a": [{"b": 1}]}, {"a": [{"b": 1}]}),
        ({"a": {"b": 1}}, {"a": "text"}, {"a": "text"}),
        ({}, {"a": {"b": None}}, {"a": {"b": None}}),
    ],
)
def test_a_patch_changes_what_it_names(target: Any, patch: Any, result: Any) -> None:
    before = repr(target)
    assert merge_patch.merged(target, patch) == result
    assert repr(target) == before
