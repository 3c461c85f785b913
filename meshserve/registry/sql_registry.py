"""What was registered, made durable in a database: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from meshserve import errors
from meshserve.core.values import catalog, desired, model, registry_contents, reports
from meshserve.registry import registry_tables, rows

BUSY_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 10
VERSION, MESH_ID, DOCUMENT = "schema_version", "mesh_id", "document"


class SqlRegistry:
    """One database. Its methods block; one thread at a time calls them. The first call opens it, and makes its tables."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: sa.Engine | None = None

    def load(self) -> registry_contents.RegistryContents:
        """All that it holds. Raises ConfigInvalid where the database can't be reached or is not one of ours."""
        with self._begin() as connection:
            kept = {
                row.key: row.value
                for row in connection.execute(sa.select(registry_tables.settings))
            }
            changes: tuple[registry_contents.RegistryChange, ...] = (
                *_models(connection),
                *_aliases(connection),
            )
        return registry_contents.RegistryContents(changes, kept.get(DOCUMENT, ""), kept[MESH_ID])

    def save(self, changes: Sequence[registry_contents.RegistryChange]) -> None:
        """Make the changes durable, all or none. Raises Unavailable where the database can't be written."""
        with self._begin() as connection:
            for kind, alike in itertools.groupby(changes, type):
                SAVES[kind](connection, list(alike))

    def remember(self, learned: Sequence[reports.LearnedMeasurement]) -> None:
        """Keep what was learned about the models that it holds. Raises Unavailable where the database can't be written."""
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
    url = url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
    try:
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
    there = set(sa.inspect(connection).get_table_names())
    ours = set(registry_tables.metadata.tables)
    if not there & ours:
        registry_tables.metadata.create_all(connection)
        found = {VERSION: str(registry_tables.SCHEMA_VERSION), MESH_ID: str(uuid.uuid4())}
        connection.execute(
            sa.insert(registry_tables.settings),
            [{"key": key, "value": value} for key, value in found.items()],
        )
        return
    if not ours <= there:
        raise errors.ConfigInvalid(
            f"it was not made by meshserve: tables are missing: {', '.join(sorted(ours - there))}"
        )
    version = connection.scalar(
        sa.select(registry_tables.settings.c.value).where(registry_tables.settings.c.key == VERSION)
    )
    if version != str(registry_tables.SCHEMA_VERSION):
        raise errors.ConfigInvalid(
            f"its schema has version {version}, this meshserve reads version {registry_tables.SCHEMA_VERSION}"
        )


def _reason(error: sa.exc.SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__


def _models(connection: sa.Connection) -> Iterator[catalog.ModelDeclared]:
    known = registry_tables.models.outerjoin(
        registry_tables.measured,
        registry_tables.models.c.digest == registry_tables.measured.c.digest,
    )
    query = sa.select(
        registry_tables.models,
        registry_tables.measured.c.host_bytes,
        registry_tables.measured.c.gpu_bytes,
        registry_tables.measured.c.load_s,
    ).select_from(known)
    for name, version, spec, digest, host_bytes, gpu_bytes, load_s in connection.execute(query):
        measured = (
            None
            if host_bytes is None
            else model.Measured(digest, model.Footprint(host_bytes, gpu_bytes), load_s)
        )
        yield catalog.ModelDeclared(rows.spec_from(name, version, spec), measured)


def _aliases(connection: sa.Connection) -> Iterator[desired.DesiredAlias]:
    for alias, meaning in connection.execute(sa.select(registry_tables.aliases)):
        yield rows.alias_from(alias, meaning)


Row = dict[str, Any]


def _declare(connection: sa.Connection, declared: Sequence[catalog.ModelDeclared]) -> None:
    _put(connection, registry_tables.models, [_model_row(each) for each in declared])


def _model_row(declared: catalog.ModelDeclared) -> Row:
    digest = declared.measured.digest if declared.measured else None
    return {**declared.spec.id._asdict(), "spec": rows.spec_text(declared.spec), "digest": digest}


def _withdraw(connection: sa.Connection, withdrawn: Sequence[catalog.ModelWithdrawn]) -> None:
    _delete(connection, registry_tables.models, [each.id._asdict() for each in withdrawn])


def _set_aliases(connection: sa.Connection, aliases: Sequence[desired.DesiredAlias]) -> None:
    _put(
        connection,
        registry_tables.aliases,
        [{"alias": each.alias, "meaning": rows.alias_text(each)} for each in aliases],
    )


def _clear_aliases(connection: sa.Connection, cleared: Sequence[catalog.AliasCleared]) -> None:
    _delete(connection, registry_tables.aliases, [{"alias": each.alias} for each in cleared])


def _keep_document(connection: sa.Connection, wanted: Sequence[desired.Desired]) -> None:
    _put(
        connection,
        registry_tables.settings,
        [{"key": DOCUMENT, "value": each.document} for each in wanted],
    )


SAVES: Mapping[type, Callable[[sa.Connection, list[Any]], None]] = {
    catalog.ModelDeclared: _declare,
    catalog.ModelWithdrawn: _withdraw,
    desired.DesiredAlias: _set_aliases,
    catalog.AliasCleared: _clear_aliases,
    desired.Desired: _keep_document,
}


def _remember(connection: sa.Connection, learned: Sequence[reports.LearnedMeasurement]) -> None:
    _put(
        connection,
        registry_tables.measured,
        list({each.measured.digest: _measured_row(each.measured) for each in learned}.values()),
    )
    where = (
        registry_tables.models.c.name == sa.bindparam("of_name"),
        registry_tables.models.c.version == sa.bindparam("of_version"),
    )
    digests = [
        {"of_name": each.id.name, "of_version": each.id.version, "digest": each.measured.digest}
        for each in learned
    ]
    if digests:
        connection.execute(sa.update(registry_tables.models).where(*where), digests)


def _measured_row(measured: model.Measured) -> Row:
    return {"digest": measured.digest, **measured.footprint._asdict(), "load_s": measured.load_s}


def _put(connection: sa.Connection, table: sa.Table, found: list[Row]) -> None:
    """Insert the rows, in place of those with the same keys."""
    if not found:
        return
    insert = (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(table)
    key = [column.name for column in table.primary_key]
    values = {name: insert.excluded[name] for name in found[0] if name not in key}
    connection.execute(insert.on_conflict_do_update(index_elements=key, set_=values), found)


def _delete(connection: sa.Connection, table: sa.Table, keys: list[Row]) -> None:
    where = (table.c[name] == sa.bindparam(f"of_{name}") for name in keys[0])
    connection.execute(
        sa.delete(table).where(*where),
        [{f"of_{name}": value for name, value in key.items()} for key in keys],
    )
