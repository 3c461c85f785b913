"""Pydantic's errors as diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from meshserve.config import diagnostics, fields, schema

FREE = ("options", "engine")
"""Mappings whose values may be any JSON."""

MARKS = ("[key]", fields.NUMBER, fields.RANGE)


def diagnostic(section: type[fields.Section], error: ErrorDetails) -> diagnostics.Diagnostic:
    """Return one of pydantic's errors in validating `section`, in words for a user."""
    path = _path(error["loc"])
    kind, value = error["type"], error["input"]
    if kind == "extra_forbidden":
        known = schema.known_keys(section, path[:-1])
        message = f"unknown key{diagnostics.hint(str(path[-1]), known)}"
    elif kind == "value_error":
        message = str(error["ctx"]["error"])
    elif kind in SENTENCES:
        message = SENTENCES[kind](value, error.get("ctx", {}))
    else:
        text = error["msg"]
        message = f"{text[:1].lower()}{text[1:]}, got {diagnostics.shown(value)}"
    return diagnostics.Diagnostic(path, message)


def _path(loc: diagnostics.Path) -> diagnostics.Path:
    # Pydantic marks keys with "[key]" and unions with their tags; below a free mapping it names the
    # JSON types that it tried.
    path = tuple(part for part in loc if part not in MARKS)
    ends = [path.index(key) + 2 for key in FREE if key in path]
    return path[: min(ends)] if ends else path


def _expected(text: str) -> Callable[[Any, Mapping[str, Any]], str]:
    return lambda value, context: (
        f"expected {text.format(**context)}, got {diagnostics.shown(value)}"
    )


def _choice(value: Any, context: Mapping[str, Any]) -> str:
    expected = context["expected"].replace("'", "")
    words = expected.replace(" or ", ", ").split(", ")
    suggestion = diagnostics.did_you_mean(str(value), words)
    return f"expected {expected}, got {diagnostics.shown(value)}{suggestion}"


# Pydantic's own sentences speak of Python's types, which authors of YAML need not know.
SENTENCES: Mapping[str, Callable[[Any, Mapping[str, Any]], str]] = {
    "missing": lambda *_: "is needed, but not given",
    "string_type": _expected("text"),
    "bool_type": _expected("true or false"),
    "int_type": _expected("a whole number"),
    "float_type": _expected("a number"),
    "path_type": _expected("a path"),
    "tuple_type": _expected("a list"),
    "dict_type": _expected("a mapping"),
    "model_type": _expected("a mapping"),
    "model_attributes_type": _expected("a mapping"),
    "literal_error": _choice,
    "greater_than": _expected("more than {gt:g}"),
    "greater_than_equal": _expected("at least {ge}"),
    "string_too_short": lambda *_: "must not be empty",
    "string_too_long": _expected("at most {max_length} characters"),
    "string_pattern_mismatch": lambda value, context: (
        f"expected {fields.PATTERNS[context['pattern']]}, got {diagnostics.shown(value)}"
    ),
    "invalid-json-value": _expected("a JSON value (put a date in quotes)"),
    "invalid_key": _expected("text as a key (put it in quotes)"),
}
