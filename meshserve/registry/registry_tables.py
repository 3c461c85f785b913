"""The registry's tables. Names begin with `meshserve_`, so that a database can be shared with others."""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA_VERSION = 1

metadata = sa.MetaData()

settings = sa.Table(
    "meshserve_settings",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

models = sa.Table(
    "meshserve_models",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("version", sa.String(255), primary_key=True),
    sa.Column(
        "spec", sa.Text, nullable=False, comment="JSON of core.model.ModelSpec without its id"
    ),
    sa.Column("digest", sa.String(80), nullable=True, comment="of the bytes that were last loaded"),
)

aliases = sa.Table(
    "meshserve_aliases",
    metadata,
    sa.Column("alias", sa.String(255), primary_key=True),
    sa.Column(
        "meaning", sa.Text, nullable=False, comment="JSON of core.desired.Alias without its name"
    ),
)

measured = sa.Table(
    "meshserve_measured",
    metadata,
    sa.Column("digest", sa.String(80), primary_key=True),
    sa.Column("host_bytes", sa.BigInteger, nullable=False),
    sa.Column("gpu_bytes", sa.BigInteger, nullable=False),
    sa.Column("load_s", sa.Float, nullable=False),
)
