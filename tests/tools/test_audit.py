from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from tests import support
from tools import audit


class Index(http.server.BaseHTTPRequestHandler):
    """An index that answers with one status and one body."""

    status, body = 200, b"{}"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def index() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, json.dumps({"vulnerabilities": [{"id": "PYSEC-2018-97"}]}).encode(), ""),
        (200, json.dumps({"vulnerabilities": []}).encode(), "has no advisories"),
        (200, b"{}", "has no advisories"),
        (200, b"<html>", "Expecting value"),
        (404, b"", "404"),
    ],
)
def test_an_index_without_advisories_audits_nothing(
    index: str, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, words: str
) -> None:
    monkeypatch.setattr(Index, "status", status)
    monkeypatch.setattr(Index, "body", body)
    reason = audit.reason_against(index)
    assert (bool(reason), words in reason) == (bool(words), True)


def test_an_index_that_is_not_reached_audits_nothing() -> None:
    assert "refused" in audit.reason_against(f"http://127.0.0.1:{support.free_port()}")
