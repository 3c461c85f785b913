from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshserve.kubernetes import canary_probe


class Gateway(http.server.ThreadingHTTPServer):
    """A gateway whose canary answers as `answer` says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []
        self.is_ready = True
        self.answer: Any = lambda number: (200, {"outputs": [{"data": [number + 1]}]})


class Handler(http.server.BaseHTTPRequestHandler):
    server: Gateway

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert self.path == "/readyz"
        self.send_response(200 if self.server.is_ready else 503)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append((self.path, self.headers["x-api-key"]))
        status, answer = self.server.answer(body["inputs"][0]["data"][0])
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(port: int, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "meshserve.kubernetes.canary_probe", str(port), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_right_answer_is_ready(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "MESHSERVE_CANARY_KEY").write_text("s3cret\n")
    done = run(gateway.server_port, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert gateway.requests == [("/v2/models/meshserve-canary/infer", "s3cret")]


def test_a_node_that_is_drained_is_not_ready_though_it_answers(
    gateway: Gateway, tmp_path: Path
) -> None:
    gateway.is_ready = False
    done = run(gateway.server_port, tmp_path)
    assert (done.returncode, done.stderr) == (1, "status 503 of /readyz\n")
    assert gateway.requests == []


def test_nobody_listens(gateway: Gateway, tmp_path: Path) -> None:
    gateway.server_close()
    done = run(gateway.server_port, tmp_path)
    assert done.returncode == 1
    assert "the gateway does not answer" in done.stderr


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (503, {"error": "no worker"}, "status 503"),
        (401, {"error": "no key"}, "status 401"),
        (200, {"outputs": [{"data": [7.0]}]}, "a wrong answer"),
        (200, {"outputs": []}, "a wrong answer"),
        (200, ["text"], "a wrong answer"),
    ],
)
def test_any_other_answer_is_not_ready(
    gateway: Gateway, status: int, answer: Any, reason: str
) -> None:
    gateway.answer = lambda _: (status, answer)
    assert canary_probe.ask(gateway.server_port, "", 1.0).startswith(reason)


def test_without_keys_none_is_sent(gateway: Gateway, tmp_path: Path) -> None:
    assert canary_probe.read_key(tmp_path) == ""
    assert canary_probe.ask(gateway.server_port, "", 1.0) == ""
    assert gateway.requests[0][1] is None
