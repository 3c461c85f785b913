"""Pydantic's errors in a user's words; test_config.py has them in whole files."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from meshserve.config import diagnostics, model_schema, schema, schema_errors


def fault(content: dict[str, Any]) -> diagnostics.Diagnostic:
    with pytest.raises(pydantic.ValidationError) as caught:
        schema.Config.model_validate(content)
    (error,) = caught.value.errors(include_url=False)
    return schema_errors.diagnostic(schema.Config, error)


def test_an_unknown_key_names_the_nearest_known_one() -> None:
    assert fault({"cache": {"sise": 1}}) == diagnostics.Diagnostic(
        ("cache", "sise"), "unknown key; did you mean 'size'?"
    )


def test_a_key_like_no_other_lists_all_keys() -> None:
    assert fault({"registry": {"zzz": 1}}).message == "unknown key; there are: url"


def test_a_wrong_value_in_options_is_reported_at_its_key() -> None:
    model = {"name": "a", "uri": "/a", "options": {"x": {"y": [object]}}}
    with pytest.raises(pydantic.ValidationError) as caught:
        model_schema.ModelSection.model_validate(model)
    paths = {
        schema_errors.diagnostic(model_schema.ModelSection, error).path
        for error in caught.value.errors(include_url=False)
    }
    assert paths == {("options", "x")}


def test_an_error_without_a_sentence_of_ours_keeps_pydantics() -> None:
    error: Any = {"type": "other", "loc": ("a",), "msg": "Input is odd", "input": 1}
    assert schema_errors.diagnostic(schema.Config, error).message == "input is odd, got 1"
