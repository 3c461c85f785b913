"""Databases for tests: SQLite in a folder, and a PostgreSQL server for the session."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from meshserve import registry
from tests import support

USER = "postgres"
NUMBERS = itertools.count()


def _programs() -> Path | None:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return installed[-1].parent if installed else Path(on_path).parent if on_path else None


class Postgres:
    """A server of its own, as a user who is not root: PostgreSQL refuses to run as root."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.port = support.free_port()
        self._programs = programs
        self._folder = folder
        self._user = USER if os.getuid() == 0 else None
        if self._user:
            shutil.chown(folder, USER)

    def _run(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *args],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            user=self._user,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 "
            f"-c unix_socket_directories={self._folder} -c fsync=off"
        )
        self._run("initdb", "-D", "db", "-U", USER, "-A", "trust", "--no-sync")
        self._run("pg_ctl", "-D", "db", "-w", "-o", options, "-l", "log", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", "db", "-m", "immediate", "stop")

    def new_schema(self) -> str:
        name = f"mesh{next(NUMBERS)}"
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, autocommit=True
        ) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres?options=-csearch_path%3D{name}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL here: install Debian's package postgresql")
    folder = Path(tempfile.mkdtemp(prefix="meshserve-pg-"))
    server = Postgres(programs, folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.edge)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/registry.db"
    return request.getfixturevalue("postgres").new_schema()


@pytest.fixture
def sql_registry(url: str) -> Iterator[Any]:
    opened = registry.SqlRegistry(url)
    yield opened
    opened.close()
