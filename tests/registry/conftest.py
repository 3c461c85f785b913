"""Databases for tests: SQLite in a folder, and a PostgreSQL server for the session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshserve import registry
from tests.registry import postgres as databases


@pytest.fixture(scope="session")
def postgres() -> Iterator[databases.Postgres]:
    with databases.running() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.edge)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/registry.db"
    return request.getfixturevalue("postgres").new_schema()


@pytest.fixture
def sql_registry(url: str) -> Iterator[Any]:
    opened = registry.SqlRegistry(url)
    assert opened.take_lease("test", "a test", opened.read_lease())
    yield opened
    opened.close()
