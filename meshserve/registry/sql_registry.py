"""Keeps the catalog in a database: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

import dataclasses
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, assert_never

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from meshserve.core.values import (
    catalog,
    containment,
    desired,
    model,
    nodes,
    registry_contents,
    reports,
)
from meshserve.registry import database, registry_lease
from meshserve.registry import registry_tables as tables

Row = dict[str, Any]
Write = Callable[[sa.Connection, sa.Table, list[Row]], None]


class SqlRegistry:
    """One database, for one thread at a time. Methods block; the first one creates the tables.

    Implements `registry_store.RegistryStore`. Any method raises ConfigInvalid if the database can't
    be reached then or is not a registry, and Unavailable if it fails later.
    """

    def __init__(self, url: str) -> None:
        self._database = database.Database(url)
        self._epoch = 0
        self._saves = 0

    def load(self) -> registry_contents.RegistryContents:
        """Return all that the registry holds."""
        with self._database.begin() as connection:
            settings = {
                row.key: row.value for row in connection.execute(sa.select(tables.settings))
            }
            changes: tuple[registry_contents.RegistryChange, ...] = (
                *_read_models(connection),
                *_read_aliases(connection),
                *_read_quarantines(connection),
                *_read_draining(connection),
            )
        return registry_contents.RegistryContents(
            changes, settings.get(database.DOCUMENT, ""), settings[database.MESH_ID]
        )

    def save(self, changes: Sequence[registry_contents.RegistryChange]) -> None:
        """Make the changes durable in their order, all or none.

        Raises LeaseLost, and OutcomeUnknown if `settle` must be called before the next save.
        """
        with self._database.begin() as connection:
            saves = registry_lease.confirm(connection, self._epoch, saves=1)
            # Neighbours of one kind go in one statement: a configuration may have thousands.
            writes = map(_write_of, changes)
            for (write, table), group in itertools.groupby(writes, operator.itemgetter(0, 1)):
                write(connection, table, [row for _, _, row in group])
        self._saves = saves

    def settle(self) -> bool:
        """Return whether the changes of the last save are there. Raises LeaseLost."""
        with self._database.begin() as connection:
            # It waits for the lock that the last save holds where its transaction still goes on.
            saves = registry_lease.confirm(connection, self._epoch)
        before, self._saves = self._saves, saves
        return saves > before

    def remember(self, learned: Sequence[reports.LearnedMeasurement]) -> None:
        """Keep measurements, and note for the registered models whose bytes they are of.

        Raises LeaseLost.
        """
        with self._database.begin() as connection:
            registry_lease.confirm(connection, self._epoch)
            _remember(connection, learned)

    def read_lease(self) -> registry_contents.WriteLease:
        """Return who writes the registry."""
        with self._database.begin() as connection:
            return registry_lease.read(connection)

    def take_lease(self, holder: str, about: str, seen: registry_contents.WriteLease) -> bool:
        """Write from now on as `holder`; return False if the lease has changed since `seen`."""
        with self._database.begin() as connection:
            if not registry_lease.take(connection, holder, about, seen):
                return False
            self._saves = registry_lease.confirm(connection, seen.epoch + 1)
        self._epoch = seen.epoch + 1
        return True

    def renew_lease(self) -> None:
        """Give a sign of life. Raises LeaseLost."""
        with self._database.begin() as connection:
            registry_lease.confirm(connection, self._epoch)

    def release_lease(self) -> None:
        """Let the next mesh begin at once. Does nothing if the lease is not held."""
        epoch, self._epoch = self._epoch, 0
        if epoch:
            with self._database.begin() as connection:
                registry_lease.release(connection, epoch)

    def interrupt(self) -> None:
        """Have a call fail that waits for PostgreSQL's answer; any thread may call this."""
        self._database.interrupt()

    def close(self) -> None:
        """Close every connection."""
        self._database.close()


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
            tables.parse_spec(name, version, spec), known, *tables.parse_uris(spec)
        )


def _read_aliases(connection: sa.Connection) -> Iterator[desired.DesiredAlias]:
    for alias, meaning in connection.execute(sa.select(tables.aliases)):
        yield tables.parse_alias(alias, meaning)


def _read_quarantines(connection: sa.Connection) -> Iterator[containment.CopyQuarantined]:
    for key, ids, reason in connection.execute(sa.select(tables.quarantines)):
        yield tables.parse_quarantine(key, ids, reason)


def _read_draining(connection: sa.Connection) -> Iterator[nodes.NodeDraining]:
    yield from (nodes.NodeDraining(*row) for row in connection.execute(sa.select(tables.draining)))


def _write_of(change: registry_contents.RegistryChange) -> tuple[Write, sa.Table, Row]:  # noqa: C901 - one case for each change
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
            return _put, tables.settings, {"key": database.DOCUMENT, "value": change.document}
        case containment.CopyQuarantined():
            row = {"key": change.key, "ids": tables.ids_text(change.ids), "reason": change.reason}
            return _put, tables.quarantines, row
        case containment.QuarantineEnded():
            return _delete, tables.quarantines, {"key": change.key}
        case nodes.NodeDraining():
            return _put, tables.draining, dataclasses.asdict(change)
        case nodes.NodeDrainingEnded():
            return _delete, tables.draining, {"node": change.node}
    assert_never(change)


def _model_row(declared: catalog.ModelDeclared) -> Row:
    digest = declared.measured.digest if declared.measured else None
    spec = tables.spec_text(declared.spec, declared.stamped_uri, declared.earlier_uri)
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
