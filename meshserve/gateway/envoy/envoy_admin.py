"""Envoy's administration over its Unix socket: is it ready, what has it accepted, how many requests are under way."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

TIMEOUT_S = 5.0


class Admin:
    """Questions to one Envoy. Each raises httpx.HTTPError where nobody answers."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._connected: httpx.AsyncClient | None = None

    @property
    def _http(self) -> httpx.AsyncClient:
        if self._connected is None:
            transport = httpx.AsyncHTTPTransport(uds=self._socket_path)
            self._connected = httpx.AsyncClient(
                transport=transport, base_url="http://envoy", timeout=TIMEOUT_S
            )
        return self._connected

    async def is_ready(self) -> bool:
        """Whether it has all of its configuration and takes requests."""
        return (await self._http.get("/ready")).status_code == httpx.codes.OK

    async def stats(self, pattern: str) -> Mapping[str, str]:
        """Statistics whose names match the regular expression; numbers and texts alike as text."""
        answer = await self._http.get("/stats", params={"filter": pattern})
        pairs = (line.split(": ", 1) for line in answer.text.splitlines() if ": " in line)
        return {name: value.strip('"') for name, value in pairs}

    async def prometheus(self) -> str:
        """Every statistic that was ever touched, in Prometheus' text format."""
        return (
            (await self._http.get("/stats/prometheus", params={"usedonly": ""}))
            .raise_for_status()
            .text
        )

    async def post(self, command: str) -> None:
        """Give a command, such as `/quitquitquit`."""
        (await self._http.post(command)).raise_for_status()

    async def close(self) -> None:
        """Let go of the connection; the next question opens another."""
        if self._connected is not None:
            await self._connected.aclose()
            self._connected = None
