"""Envoy's administration over its Unix socket: readiness, statistics and commands."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

TIMEOUT_S = 5.0


class EnvoyAdmin:
    """A client of one Envoy's administration. Its methods raise httpx.HTTPError if none answers."""

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
        """Return whether Envoy has its whole configuration and takes requests."""
        return (await self._http.get("/ready")).status_code == httpx.codes.OK

    async def stats(self, pattern: str) -> Mapping[str, str]:
        """Return the statistics whose names match the regular expression, as text."""
        answer = await self._http.get("/stats", params={"filter": pattern})
        pairs = (line.split(": ", 1) for line in answer.text.splitlines() if ": " in line)
        return {name: value.strip('"') for name, value in pairs}

    async def prometheus(self) -> str:
        """Return every statistic that was ever changed, in Prometheus' text format."""
        answer = await self._http.get("/stats/prometheus", params={"usedonly": ""})
        return answer.raise_for_status().text

    async def post(self, command: str) -> None:
        """Send a command, such as `/quitquitquit`."""
        (await self._http.post(command)).raise_for_status()

    async def close(self) -> None:
        """Close the connection; the next method opens another."""
        if self._connected is not None:
            await self._connected.aclose()
            self._connected = None
