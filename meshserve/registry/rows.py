"""Core values ↔ the text in a row."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson

from meshserve.core.values import desired, model


def spec_text(spec: model.ModelSpec) -> str:
    """A spec as JSON, without its id."""
    fields = {field: getattr(spec, field) for field in model.ModelSpec.__slots__ if field != "id"}
    return orjson.dumps(
        {**fields, "options": dict(spec.options), "origin": str(spec.origin)},
        option=orjson.OPT_SORT_KEYS,
    ).decode()


def spec_from(name: str, version: str, text: str) -> model.ModelSpec:
    """The spec back. Fields that it does not know are passed over: a newer meshserve may have written them."""
    fields = _known(model.ModelSpec, orjson.loads(text))
    for side in ("inputs", "outputs"):
        fields[side] = tuple(
            model.TensorSpec(each["name"], each["datatype"], tuple(each["shape"]))
            for each in fields.get(side, ())
        )
    _parse_origin(fields)
    return model.ModelSpec(id=model.ModelId(name, version), **fields)


def alias_text(alias: desired.DesiredAlias) -> str:
    """What an alias means, as JSON."""
    fields = {
        field: getattr(alias, field) for field in desired.DesiredAlias.__slots__ if field != "alias"
    }
    return orjson.dumps({**fields, "origin": str(alias.origin)}).decode()


def alias_from(name: str, text: str) -> desired.DesiredAlias:
    """The alias back."""
    fields = _known(desired.DesiredAlias, orjson.loads(text))
    _parse_origin(fields)
    return desired.DesiredAlias(alias=name, **fields)


def _parse_origin(fields: dict[str, Any]) -> None:
    if "origin" in fields:
        fields["origin"] = model.Origin.parse(fields["origin"])


def _known(kind: type[Any], fields: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in fields.items() if name in names}
