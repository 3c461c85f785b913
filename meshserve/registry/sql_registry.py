"""Keeps the catalog in a database: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

import contextlib
import itertools
import operator
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, assert_never

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from meshserve import errors
from meshserve.core.values import (
    catalog,
    containment,
    desired,
    model,
    registry_contents,
    reports,
)
from meshserve.registry import registry_tables as tables

BUSY_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 10  # libpq itself waits without end
VERSION, MESH_ID, DOCUMENT = "schema_version", "mesh_id", "document"

Row = dict[str, Any]
Write = Callable[[sa.Connection, sa.Table, list[Row]], None]


class SqlRegistry:
    """One database, for one thread at a time. Methods block; the first one creates the tables.

    Any method raises ConfigInvalid if the database can't be reached then or is not a registry, and
    Unavailable if it fails later.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: sa.Engine | None = None

    def load(self) -> registry_contents.RegistryContents:
        """Return all that the registry holds."""
        with self._begin() as connection:
            settings = {
                row.key: row.value for row in connection.execute(sa.select(tables.settings))
            }
            changes: tuple[registry_contents.RegistryChange, ...] = (
                *_read_models(connection),
                *_read_aliases(connection),
                *_read_quarantines(connection),
            )
        return registry_contents.RegistryContents(
            changes, settings.get(DOCUMENT, ""), settings[MESH_ID]
        )

    def save(self, changes: Sequence[registry_contents.RegistryChange]) -> None:
        """Make the changes durable in their order, all or none."""
        with self._begin() as connection:
            # Neighbours of one kind go in one statement: a configuration may have thousands.
            writes = map(_write_of, changes)
            for (write, table), group in itertools.groupby(writes, operator.itemgetter(0, 1)):
                write(connection, table, [row for _, _, row in group])

    def remember(self, learned: Sequence[reports.LearnedMeasurement]) -> None:
        """Keep measurements, and note for the registered models whose bytes they are of."""
        with self._begin() as connection:
            _remember(connection, learned)

    def close(self) -> None:
        """Close every connection."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextlib.contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        engine = self._engine or self._open()
        try:
            with engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise errors.Unavailable(
                f"the registry {self._shown()} failed: {_reason(error)}", retry_after_s=1.0
            ) from error

    def _open(self) -> sa.Engine:
        engine = _engine(self._url)
        try:
            with engine.begin() as connection:
                _check_schema(connection)
        except sa.exc.SQLAlchemyError as error:
            engine.dispose()
            raise errors.ConfigInvalid(f"registry {self._shown()}: {_reason(error)}") from error
        except errors.ConfigInvalid as error:
            engine.dispose()
            raise errors.ConfigInvalid(f"registry {self._shown()}: {error.message}") from error
        # Only now, so that the next call tries again what has failed here.
        self._engine = engine
        return engine

    def _shown(self) -> str:
        return sa.make_url(self._url).render_as_string(hide_password=True)


def _engine(text: str) -> sa.Engine:
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError:
        raise errors.ConfigInvalid(f"registry: {text!r} is not a database's URL") from None
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    if url.get_backend_name() != "postgresql":
        raise errors.ConfigInvalid(
            f"registry: expected sqlite:///FILE or postgresql://…, got {url.get_backend_name()!r}"
        )
    # SQLAlchemy 2.0 takes the bare name for psycopg2, which the extra does not install.
    url = url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
    try:
        # Pinged before use: a database that was started again has closed all pooled connections.
        return sa.create_engine(
            url, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_TIMEOUT_S}
        )
    except ImportError:
        raise errors.ConfigInvalid(
            "registry: PostgreSQL needs an extra: pip install 'meshserve[postgres]'"
        ) from None


def _sqlite(url: sa.URL) -> sa.Engine:
    if url.database and url.database != ":memory:":
        file = Path(url.database)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # It holds the API keys of the configuration.
            file.touch(mode=0o600)
        except OSError as error:
            raise errors.ConfigInvalid(
                f"registry: {file}: {(error.strerror or str(error)).lower()}"
            ) from None
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
    sa.event.listen(engine, "connect", _tune_sqlite)
    return engine


def _tune_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # An acknowledged registration survives a power cut too.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _check_schema(connection: sa.Connection) -> None:
    """Create the tables in a database that has none. Raises ConfigInvalid for other tables."""
    existing = set(sa.inspect(connection).get_table_names())
    ours = set(tables.metadata.tables)
    if not existing & ours:
        tables.metadata.create_all(connection)
        first = {VERSION: str(tables.SCHEMA_VERSION), MESH_ID: str(uuid.uuid4())}
        connection.execute(
            sa.insert(tables.settings),
            [{"key": key, "value": value} for key, value in first.items()],
        )
        return
    if not ours <= existing | tables.ADDED_LATER:
        missing = ", ".join(sorted(ours - existing - tables.ADDED_LATER))
        raise errors.ConfigInvalid(f"it was not made by meshserve: tables are missing: {missing}")
    version = connection.scalar(
        sa.select(tables.settings.c.value).where(tables.settings.c.key == VERSION)
    )
    if version != str(tables.SCHEMA_VERSION):
        raise errors.ConfigInvalid(
            f"its schema has version {version}, "
            f"this meshserve reads version {tables.SCHEMA_VERSION}"
        )
    # Only after the checks: a registry of a newer schema must stay as it is.
    tables.metadata.create_all(
        connection, [tables.metadata.tables[name] for name in tables.ADDED_LATER - existing]
    )


def _reason(error: sa.exc.SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__


def _read_models(connection: sa.Connection) -> Iterator[catalog.ModelDeclared]:
    # An outer join, because a model has no measurement before its first load.
    joined = tables.models.outerjoin(
        tables.measured, tables.models.c.digest == tables.measured.c.digest
    )
    measured = tables.measured.c
    query = sa.select(
        tables.models, measured.host_bytes, measured.gpu_bytes, measured.load_s
    ).select_from(joined)
    for name, version, spec, digest, host_bytes, gpu_bytes, load_s in connection.execute(query):
        known = (
            None
            if host_bytes is None
            else model.Measured(digest, model.Footprint(host_bytes, gpu_bytes), load_s)
        )
        yield catalog.ModelDeclared(
            tables.parse_spec(name, version, spec), known, tables.parse_stamped_uri(spec)
        )


def _read_aliases(connection: sa.Connection) -> Iterator[desired.DesiredAlias]:
    for alias, meaning in connection.execute(sa.select(tables.aliases)):
        yield tables.parse_alias(alias, meaning)


def _read_quarantines(connection: sa.Connection) -> Iterator[containment.CopyQuarantined]:
    for key, ids, reason in connection.execute(sa.select(tables.quarantines)):
        yield tables.parse_quarantine(key, ids, reason)


def _write_of(change: registry_contents.RegistryChange) -> tuple[Write, sa.Table, Row]:
    """Return how a change is written: the operation, the table, and the row or its key."""
    match change:
        case catalog.ModelDeclared():
            return _put, tables.models, _model_row(change)
        case catalog.ModelWithdrawn():
            return _delete, tables.models, change.id._asdict()
        case desired.DesiredAlias():
            meaning = tables.alias_text(change)
            return _put, tables.aliases, {"alias": change.alias, "meaning": meaning}
        case catalog.AliasCleared():
            return _delete, tables.aliases, {"alias": change.alias}
        case desired.Desired():
            # All else of a configuration follows from its document.
            return _put, tables.settings, {"key": DOCUMENT, "value": change.document}
        case containment.CopyQuarantined():
            row = {"key": change.key, "ids": tables.ids_text(change.ids), "reason": change.reason}
            return _put, tables.quarantines, row
        case containment.QuarantineEnded():
            return _delete, tables.quarantines, {"key": change.key}
    assert_never(change)


def _model_row(declared: catalog.ModelDeclared) -> Row:
    digest = declared.measured.digest if declared.measured else None
    spec = tables.spec_text(declared.spec, declared.stamped_uri)
    return {**declared.spec.id._asdict(), "spec": spec, "digest": digest}


def _remember(connection: sa.Connection, learned: Sequence[reports.LearnedMeasurement]) -> None:
    if not learned:
        return
    # Several models may have the same bytes.
    measured = {measurement.measured.digest: measurement.measured for measurement in learned}
    _put(connection, tables.measured, [_measured_row(value) for value in measured.values()])
    where = (
        tables.models.c.name == sa.bindparam("of_name"),
        tables.models.c.version == sa.bindparam("of_version"),
    )
    digests = [
        {
            "of_name": measurement.id.name,
            "of_version": measurement.id.version,
            "digest": measurement.measured.digest,
        }
        for measurement in learned
    ]
    connection.execute(sa.update(tables.models).where(*where), digests)


def _measured_row(measured: model.Measured) -> Row:
    return {"digest": measured.digest, **measured.footprint._asdict(), "load_s": measured.load_s}


def _put(connection: sa.Connection, table: sa.Table, rows: list[Row]) -> None:
    """Insert the rows, in place of those with the same keys."""
    # SQLAlchemy has `ON CONFLICT` in the insert of each dialect, not in the common one.
    insert = (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(table)
    key = [column.name for column in table.primary_key]
    values = {name: insert.excluded[name] for name in rows[0] if name not in key}
    connection.execute(insert.on_conflict_do_update(index_elements=key, set_=values), rows)


def _delete(connection: sa.Connection, table: sa.Table, keys: list[Row]) -> None:
    # A parameter of a column's own name would set the column.
    where = (table.c[name] == sa.bindparam(f"of_{name}") for name in keys[0])
    parameters = [{f"of_{name}": value for name, value in key.items()} for key in keys]
    connection.execute(sa.delete(table).where(*where), parameters)
