"""A connection to the registry's database: SQLite or PostgreSQL, by URL."""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from meshserve import errors
from meshserve.core.interfaces import registry_store
from meshserve.registry import registry_tables as tables

BUSY_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 4  # libpq itself waits without end
VERSION, MESH_ID, DOCUMENT = "schema_version", "mesh_id", "document"


class Database:
    """Opens the database when it is first used, and checks that it is a registry."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: sa.Engine | None = None
        self._newest: Any = None

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Have a transaction that is committed with the block, if that raises nothing.

        Raises ConfigInvalid if the database can't be reached for the first time or is no registry,
        Unavailable if it fails later, and OutcomeUnknown if it fails in the commit.
        """
        engine = self._engine or self._open()
        raised: type[errors.MeshError] = errors.Unavailable
        try:
            with engine.connect() as connection:
                yield connection
                raised = registry_store.OutcomeUnknown
                connection.commit()
        except sa.exc.SQLAlchemyError as error:
            raise raised(
                f"the registry {self._shown()} failed: {_reason(error)}", retry_after_s=1.0
            ) from error

    def interrupt(self) -> None:
        """Have the thread fail that waits for PostgreSQL's answer; any thread may call this.

        A server that is stopped or cut off would be waited for without end. What waits for the lock
        of SQLite's file ends by itself.
        """
        connection = self._newest
        if connection is None or not hasattr(connection, "pgconn"):
            return
        # Its own thread may close it meanwhile. A copy of the descriptor is shut down, because the
        # connection's own stays that of its thread.
        with (
            contextlib.suppress(OSError, connection.Error),
            socket.socket(fileno=os.dup(connection.fileno())) as copy,
        ):
            copy.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close every connection."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = self._newest = None

    def _open(self) -> sa.Engine:
        engine = _engine(self._url)
        sa.event.listen(engine, "connect", self._note)
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

    def _note(self, connection: Any, _: Any) -> None:
        # One thread at a time has one connection at a time: the newest is the one that is in use.
        self._newest = connection

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
