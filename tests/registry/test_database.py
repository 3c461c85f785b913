"""A database that breaks or hangs. What both kinds promise is in test_sql_registry.py."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from meshserve import errors
from meshserve.core.interfaces import registry_store
from meshserve.registry import database
from tests import support


def test_a_failed_commit_leaves_its_outcome_open(tmp_path: Path) -> None:
    opened = database.Database(f"sqlite:///{tmp_path}/r.db")
    with (  # noqa: PT012 - the commit at the end of the block fails
        pytest.raises(registry_store.OutcomeUnknown),
        opened.begin() as connection,
    ):
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        connection.exec_driver_sql("CREATE TABLE a (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql(
            "CREATE TABLE b (id INTEGER REFERENCES a DEFERRABLE INITIALLY DEFERRED)"
        )
        connection.exec_driver_sql("INSERT INTO b VALUES (7)")
    opened.close()


def test_a_block_that_fails_changes_nothing(tmp_path: Path) -> None:
    opened = database.Database(f"sqlite:///{tmp_path}/r.db")
    with (  # noqa: PT012 - the first statement is undone
        pytest.raises(errors.Unavailable) as caught,
        opened.begin() as connection,
    ):
        connection.exec_driver_sql("UPDATE meshserve_settings SET value = 'x'")
        connection.exec_driver_sql("UPDATE meshserve_none SET value = 'x'")
    assert not isinstance(caught.value, registry_store.OutcomeUnknown)
    with opened.begin() as connection:
        values = connection.exec_driver_sql("SELECT value FROM meshserve_settings").scalars()
        assert "x" not in values
    opened.close()


def test_an_interrupt_without_a_connection_does_nothing(tmp_path: Path) -> None:
    opened = database.Database(f"sqlite:///{tmp_path}/r.db")
    opened.interrupt()
    with opened.begin() as connection:
        opened.interrupt()
        assert connection.scalar(sa.text("SELECT 1")) == 1
    opened.close()


@pytest.mark.edge
def test_a_call_that_waits_for_postgresql_is_interrupted(postgres: Any) -> None:
    opened = database.Database(postgres.new_schema())
    with opened.begin() as connection:
        connection.scalar(sa.text("SELECT 1"))
    waiting = threading.Event()
    caught: list[Exception] = []

    def wait() -> None:
        try:
            with opened.begin() as connection:
                waiting.set()
                connection.execute(sa.text("SELECT pg_sleep(600)"))
        except errors.MeshError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(support.WAIT_S)
    begun_s = time.monotonic()
    while thread.is_alive() and time.monotonic() < begun_s + support.WAIT_S:
        # Again, because the query may not have begun at the first time.
        opened.interrupt()
        thread.join(support.PAUSE_S)
    assert [type(error) for error in caught] == [errors.Unavailable]
    with opened.begin() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1
    opened.close()
    opened.interrupt()
