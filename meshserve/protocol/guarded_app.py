"""An ASGI app that passes on the requests that bring the mesh's secret, and refuses all others."""

from __future__ import annotations

from starlette import types

from meshserve.protocol import mesh_secret


class GuardedApp:
    """Answers 401 without the secret, which the app behind it does not see."""

    def __init__(self, app: types.ASGIApp, secret: str) -> None:
        self._app = app
        self._secret = secret.encode()

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Answer one request (ASGI)."""
        headers = mesh_secret.take(self._secret, scope["headers"])
        if headers is None:
            await _refuse(send)
        else:
            await self._app({**scope, "headers": headers}, receive, send)


async def _refuse(send: types.Send) -> None:
    length = (b"content-length", b"%d" % len(mesh_secret.REFUSAL))
    headers = [*mesh_secret.REFUSAL_HEADERS, length]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": mesh_secret.REFUSAL})


def guard(app: types.ASGIApp, secret: str) -> types.ASGIApp:
    """Return the app behind the secret, or as it is without one."""
    return GuardedApp(app, secret) if secret else app
