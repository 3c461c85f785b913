"""The row that says who writes the registry; each write checks it in its own transaction.

The check is an UPDATE, so that it locks the row: nobody can take the lease between the check and
the commit, and a controller that was stopped meanwhile finds another epoch in the row.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from meshserve.core.interfaces import registry_store
from meshserve.core.values import registry_contents
from meshserve.registry import registry_tables as tables

KEY = "writer"
_table = tables.lease
_columns = tables.lease.c


def read(connection: sa.Connection) -> registry_contents.WriteLease:
    """Return the lease of the registry, a free one if nobody has ever taken it."""
    query = sa.select(_columns.holder, _columns.about, _columns.epoch, _columns.beats)
    row = connection.execute(query.where(_columns.key == KEY)).one_or_none()
    return registry_contents.WriteLease(*row) if row else registry_contents.WriteLease()


def take(
    connection: sa.Connection, holder: str, about: str, seen: registry_contents.WriteLease
) -> bool:
    """Make `holder` the one who writes, from the next epoch on; return whether that was done.

    It is not if the lease has changed since it was `seen`.
    """
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    # All numbers are 0 in the beginning, as in a lease that nobody has ever taken.
    connection.execute(insert(_table).values(key=KEY).on_conflict_do_nothing())
    taken = connection.execute(
        sa.update(_table)
        .where(
            _columns.key == KEY,
            _columns.holder == seen.holder,
            _columns.epoch == seen.epoch,
            _columns.beats == seen.beats,
        )
        .values(holder=holder, about=about, epoch=seen.epoch + 1, beats=seen.beats + 1)
    )
    return taken.rowcount == 1


def confirm(connection: sa.Connection, epoch: int, saves: int = 0) -> int:
    """Lock the lease for this transaction, and count a beat and so many saves.

    Returns the number of saves so far. Raises LeaseLost if another epoch has begun.
    """
    confirmed = connection.execute(
        sa.update(_table)
        .where(_columns.key == KEY, _columns.epoch == epoch, _columns.holder != "")
        .values(beats=_columns.beats + 1, saves=_columns.saves + saves)
        .returning(_columns.saves)
    ).scalar()
    if confirmed is None:
        now = read(connection)
        raise registry_store.LeaseLost(
            f"{now.about or 'another controller'} has taken the registry (epoch {now.epoch}); "
            f"this controller, of epoch {epoch}, writes nothing any more"
        )
    return int(confirmed)


def release(connection: sa.Connection, epoch: int) -> None:
    """Leave the lease to whoever comes next, unless another epoch has begun."""
    mine = (_columns.key == KEY) & (_columns.epoch == epoch)
    connection.execute(sa.update(_table).where(mine).values(holder="", about=""))
