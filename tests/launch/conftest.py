"""A stand-in for a running mesh, and configurations to start one with."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshserve import config

HEALTHY = (200, '{"live": true}')

Settings = Callable[..., config.Config]


class StubMesh(http.server.ThreadingHTTPServer):
    """Answers by path with what `answers` holds, and records the requests.

    After a drain request `/healthz` answers 404, as a gateway without its mesh does.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), StubHandler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.answers = {"/healthz": HEALTHY}
        self.requests: list[tuple[str, str | None, Any]] = []


class StubHandler(http.server.BaseHTTPRequestHandler):
    """Answers one request of a StubMesh."""

    server: StubMesh

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.requests.append(
            (self.path, self.headers.get("authorization"), json.loads(body) if body else None)
        )
        status, text = self.server.answers.get(self.path, (404, "nothing"))
        if self.path == "/mesh/v1/drain":
            self.server.answers["/healthz"] = (404, "")
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = _answer  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubMesh]:
    """A server in the place of a mesh."""
    monkeypatch.delenv("MESHSERVE_API_KEY", raising=False)
    with StubMesh() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A function that loads a configuration with nothing but `state_dir` and the given lines."""

    def load(lines: str = "") -> config.Config:
        (tmp_path / "config.yaml").write_text(f"state_dir: state\n{lines}")
        return config.load(tmp_path / "config.yaml")

    return load
