"""A web server for tests: files by path, with faults on demand."""

from __future__ import annotations

import http.server


class Site(http.server.ThreadingHTTPServer):
    """Serves `files` by path, and keeps the paths that are `asked` for.

    The next `broken` answers stop halfway, the next `failing` ones are 503.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.authorizations: list[str | None] = []
        self.broken = 0
        self.failing = 0
        self.refuses_head = False
        self.has_head = True
        self.has_ranges = True

    def handle_error(self, *_: object) -> None:
        """Clients that leave are meant to."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_HEAD(self) -> None:
        self._answer(is_head=True)

    def do_GET(self) -> None:
        self._answer(is_head=False)

    def _answer(self, *, is_head: bool) -> None:
        self.server.asked.append((self.command, self.path))
        self.server.authorizations.append(self.headers.get("authorization"))
        content = self.server.files.get(self.path)
        if self.server.failing:
            self.server.failing -= 1
            self._send_nothing(503)
        elif is_head and self.server.refuses_head:
            self._send_nothing(403)
        elif content is None or (is_head and not self.server.has_head):
            self._send_nothing(404)
        else:
            self._send_content(content, is_head=is_head)

    def _send_nothing(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def _send_content(self, content: bytes, *, is_head: bool) -> None:
        asked_for = self.headers.get("range", "") if self.server.has_ranges else ""
        first = int(asked_for[6:].split("-")[0] or 0)
        rest = content[first:]
        self.send_response(206 if asked_for else 200)
        self.send_header("content-length", str(len(rest)))
        self.send_header("etag", f'"{hash(content)}"')
        if asked_for:
            self.send_header("content-range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not is_head:
            self._write(rest)

    def _write(self, rest: bytes) -> None:
        if self.server.broken:
            self.server.broken -= 1
            self.close_connection = True
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass
