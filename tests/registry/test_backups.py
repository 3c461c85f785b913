"""The backups of docs/operations.md, taken while a mesh writes, and put back."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from meshserve import registry
from meshserve.core.values import catalog
from tests.core import world
from tests.registry import postgres as databases

KEPT = (catalog.ModelDeclared(world.spec("kept")),)
LATE = (catalog.ModelDeclared(world.spec("late")),)


def opened(url: str) -> registry.SqlRegistry:
    """A registry whose lease is taken, whoever had it in the backup."""
    store = registry.SqlRegistry(url)
    assert store.take_lease("test", "a test", store.read_lease())
    return store


def test_a_copy_of_sqlite_is_put_back_with_the_mesh_down(tmp_path: Path) -> None:
    file, copy = tmp_path / "registry.db", tmp_path / "copy.db"
    store = opened(f"sqlite:///{file}")
    store.save(KEPT)
    with (
        contextlib.closing(sqlite3.connect(file)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        # What the shell's `.backup` calls.
        source.backup(target)
    store.save(LATE)
    # As after a crash: the log of what was written is still there.
    for suffix in ("-wal", "-shm"):
        shutil.copy(f"{file}{suffix}", f"{file}{suffix}.kept")
    store.close()
    for suffix in ("-wal", "-shm"):
        shutil.move(f"{file}{suffix}.kept", f"{file}{suffix}")
    shutil.copy(copy, file)
    for suffix in ("-wal", "-shm"):
        Path(f"{file}{suffix}").unlink()
    restored = opened(f"sqlite:///{file}")
    assert restored.load().changes == KEPT
    restored.save(LATE)
    restored.close()


@pytest.mark.edge
def test_a_dump_of_postgresql_is_put_back(postgres: databases.Postgres) -> None:
    url = postgres.new_schema()
    schema = url.rpartition("%3D")[2]
    store = opened(url)
    store.save(KEPT)
    where = ("-h", "127.0.0.1", "-p", str(postgres.port), "-U", databases.USER)
    postgres.run("pg_dump", *where, "--schema", schema, "--file", "dump.sql", "postgres")
    store.save(LATE)
    store.close()
    postgres.run("psql", *where, "-q", "-c", f"DROP SCHEMA {schema} CASCADE", "postgres")
    postgres.run("psql", *where, "-q", "-f", "dump.sql", "postgres")
    restored = opened(url)
    assert restored.load().changes == KEPT
    restored.close()
