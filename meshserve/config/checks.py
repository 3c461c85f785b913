"""What is wrong with a document, as faults: each section by its schema, and the sections against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from meshserve.config import diagnostics, name_conflicts, schema, sections, values

Entry = tuple[int, dict[Any, Any]]
FREE = ("options", "engine")
"""Mappings whose values may be any JSON."""


def of_schema(root: type[sections.Section], found: ErrorDetails) -> diagnostics.Diagnostic:
    """One of pydantic's errors in a user's words."""
    path = _path(found["loc"])
    sentence = SENTENCES.get(found["type"])
    if found["type"] == "extra_forbidden":
        return diagnostics.Diagnostic(
            path, _unknown(str(path[-1]), schema.known_keys(root, path[:-1]))
        )
    if found["type"] == "value_error":
        return diagnostics.Diagnostic(path, str(found["ctx"]["error"]))
    if sentence is None:
        return diagnostics.Diagnostic(
            path,
            f"{found['msg'][:1].lower()}{found['msg'][1:]}, got {diagnostics.shown(found['input'])}",
        )
    return diagnostics.Diagnostic(path, sentence(found["input"], found.get("ctx", {})))


def _path(loc: diagnostics.Path) -> diagnostics.Path:
    """Where it is in the document: without pydantic's marks for keys, and for the kinds that a value of anybody's choice was tried as."""
    path = tuple(part for part in loc if part != "[key]")
    ends = [path.index(key) + 2 for key in FREE if key in path]
    return path[: min(ends)] if ends else path


def _unknown(key: str, known: tuple[str, ...]) -> str:
    return "unknown key" + (
        diagnostics.did_you_mean(key, known) or f"; there are: {', '.join(known)}"
    )


def _got(expected: str) -> Callable[[Any, Mapping[str, Any]], str]:
    return lambda given, context: (
        f"expected {expected.format(**context)}, got {diagnostics.shown(given)}"
    )


def _choice(given: Any, context: Mapping[str, Any]) -> str:
    expected = context["expected"].replace("'", "")
    return f"expected {expected}, got {diagnostics.shown(given)}{diagnostics.did_you_mean(str(given), expected.replace(' or ', ', ').split(', '))}"


SENTENCES: Mapping[str, Callable[[Any, Mapping[str, Any]], str]] = {
    "missing": lambda *_: "is needed, but not given",
    "string_type": _got("text"),
    "bool_type": _got("true or false"),
    "int_type": _got("a whole number"),
    "float_type": _got("a number"),
    "path_type": _got("a path"),
    "tuple_type": _got("a list"),
    "dict_type": _got("a mapping"),
    "model_type": _got("a mapping"),
    "model_attributes_type": _got("a mapping"),
    "literal_error": _choice,
    "greater_than": _got("more than {gt:g}"),
    "greater_than_equal": _got("at least {ge}"),
    "string_too_short": lambda *_: "must not be empty",
    "string_too_long": _got("at most {max_length} characters"),
    "string_pattern_mismatch": lambda given, context: (
        f"expected {values.FORMS[context['pattern']]}, got {diagnostics.shown(given)}"
    ),
    "invalid-json-value": _got("a JSON value (put a date in quotes)"),
    "invalid_key": _got("text as a key (put it in quotes)"),
}


def across(document: Any) -> Iterator[diagnostics.Diagnostic]:
    """What only several entries together can get wrong. Entries of a wrong shape are passed over: their own faults say so."""
    models = list(_entries(document, "models"))
    yield from _unknown_pools(
        document, [*_at("models", models), *_at("repositories", _entries(document, "repositories"))]
    )
    yield from name_conflicts.duplicates(models, list(_entries(document, "llms")))


def _entries(document: Any, key: str) -> Iterator[Entry]:
    listed = document.get(key) if isinstance(document, dict) else None
    yield from (
        (index, entry)
        for index, entry in enumerate(listed if isinstance(listed, list) else ())
        if isinstance(entry, dict)
    )


def _at(
    key: str, entries: Iterator[Entry] | list[Entry]
) -> Iterator[tuple[diagnostics.Path, dict[Any, Any]]]:
    return (((key, index), entry) for index, entry in entries)


def _unknown_pools(
    document: Any, entries: list[tuple[diagnostics.Path, dict[Any, Any]]]
) -> Iterator[diagnostics.Diagnostic]:
    pools = document.get("pools") if isinstance(document, dict) else None
    known = sorted({schema.DEFAULT_POOL, *map(str, pools if isinstance(pools, dict) else ())})
    for path, entry in entries:
        pool = entry.get("pool")
        if isinstance(pool, str) and pool not in known:
            there = diagnostics.did_you_mean(pool, known) or f"; there are: {', '.join(known)}"
            yield diagnostics.Diagnostic((*path, "pool"), f"there is no pool {pool!r}{there}")
