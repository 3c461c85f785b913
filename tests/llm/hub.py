"""A hub on this machine: the part of Hugging Face's HTTP API that fetches one model by name."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMMIT = "c0ffee" + "0" * 34
REPOSITORY = "org/tiny"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    requests: list[str]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        sent = urllib.parse.parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        self._json(
            [
                self._entry(self.folder / name)
                for name in sent.get("paths", [])
                if (self.folder / name).is_file()
            ]
        )

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        self.requests.append(f"{self.command} {path}")
        if re.fullmatch(rf"/api/models/{REPOSITORY}/tree/[^/]+", path):
            self._json([self._entry(file) for file in self._files()])
        elif re.fullmatch(rf"/api/models/{REPOSITORY}(/revision/[^/]+)?", path):
            self._json(
                {
                    "id": REPOSITORY,
                    "sha": COMMIT,
                    "siblings": [{"rfilename": file.name} for file in self._files()],
                }
            )
        elif match := re.fullmatch(rf"/{REPOSITORY}/resolve/[^/]+/(.+)", path):
            self._file(self.folder / match[1])
        else:
            self._send(404, b"", {"x-error-code": "RepoNotFound"})

    def _files(self) -> list[Path]:
        return sorted(file for file in self.folder.iterdir() if file.is_file())

    def _entry(self, file: Path) -> dict[str, Any]:
        return {
            "type": "file",
            "path": file.name,
            "size": file.stat().st_size,
            "oid": _digest(file),
        }

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"content-type": "application/json"})

    def _file(self, file: Path) -> None:
        if not file.is_file():
            self._send(404, b"", {"x-error-code": "EntryNotFound", "x-repo-commit": COMMIT})
            return
        self._send(200, file.read_bytes(), {"etag": f'"{_digest(file)}"', "x-repo-commit": COMMIT})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield its address, and the list of its requests."""
    requests: list[str] = []
    handler = type("Handler", (_Handler,), {"folder": Path(folder), "requests": requests})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", requests
        finally:
            server.shutdown()
