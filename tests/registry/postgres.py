"""A PostgreSQL server for tests, which can be stopped and hung."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

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

    def run(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *args],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            user=self._user,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def create(self) -> None:
        self.run("initdb", "-D", "db", "-U", USER, "-A", "trust", "--no-sync")

    def start(self) -> None:
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 "
            f"-c unix_socket_directories={self._folder} -c fsync=off"
        )
        self.run("pg_ctl", "-D", "db", "-w", "-o", options, "-l", "log", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", "db", "-m", "immediate", "stop")

    def new_schema(self) -> str:
        name = f"mesh{next(NUMBERS)}"
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, autocommit=True
        ) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres?options=-csearch_path%3D{name}"

    def processes(self) -> list[psutil.Process]:
        """The server and the processes that serve its connections."""
        first = psutil.Process(int((self._folder / "db/postmaster.pid").read_text().split()[0]))
        return [first, *first.children()]

    def hang(self) -> None:
        """Have it answer nothing, and refuse nothing."""
        for process in self.processes():
            process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        for process in self.processes():
            process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """A server with an empty database; skips the test where there is no PostgreSQL."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL here: install Debian's package postgresql")
    folder = Path(tempfile.mkdtemp(prefix="meshserve-pg-"))
    server = Postgres(programs, folder)
    server.create()
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
