"""Connections of `http_protocol` that refuse whoever does not send the mesh's secret."""

from __future__ import annotations

import functools

from meshserve.protocol import handler_server, http_protocol, mesh_secret

REFUSED: http_protocol.Answer = (401, mesh_secret.REFUSAL_HEADERS[:1], mesh_secret.REFUSAL)


class GuardedConnection(http_protocol.HttpConnection):
    """One connection whose requests must bring the secret, which the handler does not see."""

    def __init__(
        self,
        secret: bytes,
        handler: http_protocol.Handler,
        connections: handler_server.OpenConnections,
    ) -> None:
        super().__init__(handler, connections)
        self._secret = secret

    def on_headers_complete(self) -> None:
        """End the head (httptools). Raises RequestRefused, before the body, without the secret."""
        super().on_headers_complete()
        # At the end of the head, so that trailers, which come later, bring no secret.
        headers = mesh_secret.take(self._secret, self._headers)
        if headers is None:
            raise http_protocol.RequestRefused(REFUSED)
        self._headers = headers


def maker(secret: str) -> handler_server.ConnectionMaker:
    """Return what makes a server's connections; without a secret they cost nothing more."""
    if not secret:
        return http_protocol.HttpConnection
    return functools.partial(GuardedConnection, secret.encode())
