"""The registry's tables, and the JSON texts in their rows.

Names begin with `meshserve_`, so that a database can be shared with others.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import orjson
import sqlalchemy as sa

from meshserve.core.values import containment, desired, model

SCHEMA_VERSION = 1

metadata = sa.MetaData()

settings = sa.Table(
    "meshserve_settings",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

# 255 is the longest name that a configuration may have.
models = sa.Table(
    "meshserve_models",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("version", sa.String(255), primary_key=True),
    sa.Column("spec", sa.Text, nullable=False, comment="JSON of a ModelSpec without its id"),
    # Unknown before the first load.
    sa.Column("digest", sa.String(80), nullable=True, comment="of the bytes that were last loaded"),
)

aliases = sa.Table(
    "meshserve_aliases",
    metadata,
    sa.Column("alias", sa.String(255), primary_key=True),
    sa.Column("meaning", sa.Text, nullable=False, comment="JSON of a DesiredAlias without alias"),
)

# By digest and not by model: equal bytes under another name were measured already.
measured = sa.Table(
    "meshserve_measured",
    metadata,
    sa.Column("digest", sa.String(80), primary_key=True),
    sa.Column("host_bytes", sa.BigInteger, nullable=False),
    sa.Column("gpu_bytes", sa.BigInteger, nullable=False),
    sa.Column("load_s", sa.Float, nullable=False),
)

quarantines = sa.Table(
    "meshserve_quarantines",
    metadata,
    sa.Column("key", sa.String(255), primary_key=True, comment="of a copy, by its content"),
    sa.Column("ids", sa.Text, nullable=False, comment="JSON of [[name, version], …]"),
    sa.Column("reason", sa.Text, nullable=False),
)

lease = sa.Table(
    "meshserve_lease",
    metadata,
    sa.Column("key", sa.String(16), primary_key=True),
    sa.Column("holder", sa.String(64), nullable=False, server_default="", comment="who writes"),
    sa.Column("about", sa.Text, nullable=False, server_default="", comment="the holder, in words"),
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("beats", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("saves", sa.BigInteger, nullable=False, server_default="0"),
)

draining = sa.Table(
    "meshserve_draining",
    metadata,
    sa.Column("node", sa.String(255), primary_key=True, comment="Ray's id of it"),
    sa.Column("move_s", sa.Float, nullable=False),
    sa.Column("is_ended", sa.Boolean, nullable=False, comment="by Ray's own drain, afterwards"),
)

ADDED_LATER = frozenset({quarantines.name, lease.name, draining.name})
"""Tables that a registry of this schema may lack: they are created when it is opened."""


def spec_text(spec: model.ModelSpec, stamped_uri: str = "", earlier_uri: str = "") -> str:
    """Return a spec as JSON, without its id; beside it where its files are, and were before."""
    fields = _spec_fields(spec)
    uris = {"stamped_uri": stamped_uri, "earlier_uri": earlier_uri}
    fields.update({name: uri for name, uri in uris.items() if uri})
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()


def _spec_fields(spec: model.ModelSpec) -> dict[str, Any]:
    fields = {field: getattr(spec, field) for field in model.ModelSpec.__slots__ if field != "id"}
    replaced = [{"version": other.id.version, **_spec_fields(other)} for other in spec.replaced]
    return {
        **fields,
        "options": dict(spec.options),
        "origin": str(spec.origin),
        "replaced": replaced,
    }


def parse_spec(name: str, version: str, text: str) -> model.ModelSpec:
    """Return the spec in a row."""
    return _spec(name, version, orjson.loads(text))


def parse_uris(text: str) -> tuple[str, str]:
    """Return the URI with a stamp of the files in a row, and the one of before; "" if none."""
    fields = orjson.loads(text)
    return fields.get("stamped_uri", ""), fields.get("earlier_uri", "")


def _spec(name: str, version: str, row: dict[str, Any]) -> model.ModelSpec:
    fields = _known_fields(model.ModelSpec, row)
    for side in ("inputs", "outputs"):
        fields[side] = tuple(
            model.TensorSpec(tensor["name"], tensor["datatype"], tuple(tensor["shape"]))
            for tensor in fields.get(side, ())
        )
    fields["replaced"] = tuple(
        _spec(name, other["version"], other) for other in fields.get("replaced", ())
    )
    return model.ModelSpec(id=model.ModelId(name, version), **fields)


def alias_text(alias: desired.DesiredAlias) -> str:
    """Return the meaning of an alias as JSON."""
    fields = {
        field: getattr(alias, field) for field in desired.DesiredAlias.__slots__ if field != "alias"
    }
    # orjson writes no named tuples.
    before = [list(id_) for id_ in alias.before]
    return orjson.dumps({**fields, "origin": str(alias.origin), "before": before}).decode()


def parse_alias(name: str, text: str) -> desired.DesiredAlias:
    """Return the alias in a row."""
    fields = _known_fields(desired.DesiredAlias, orjson.loads(text))
    before = itertools.starmap(model.ModelId, fields.pop("before", ()))
    return desired.DesiredAlias(alias=name, before=tuple(before), **fields)


def ids_text(ids: tuple[model.ModelId, ...]) -> str:
    """Return the models of a quarantine as JSON."""
    return orjson.dumps([list(id_) for id_ in ids]).decode()


def parse_quarantine(key: str, ids: str, reason: str) -> containment.CopyQuarantined:
    """Return the quarantine in a row."""
    models_ = tuple(model.ModelId(name, version) for name, version in orjson.loads(ids))
    return containment.CopyQuarantined(key, models_, reason)


def _known_fields(kind: type[Any], row: dict[str, Any]) -> dict[str, Any]:
    # Unknown fields are ignored, because a newer meshserve may have written the row.
    known = {field.name for field in dataclasses.fields(kind)}
    fields = {name: value for name, value in row.items() if name in known}
    if "origin" in fields:
        fields["origin"] = model.Origin.parse(fields["origin"])
    return fields
