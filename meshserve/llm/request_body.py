"""Bodies of requests (ASGI), which are read whole and given on in another form."""

from __future__ import annotations

from typing import Any

from meshserve.core.interfaces import llm_engine


async def read_body(receive: llm_engine.Receive) -> bytes | None:
    """Return the whole body, None if the client leaves before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def receive_other(body: bytes, receive: llm_engine.Receive) -> llm_engine.Receive:
    """Return what gives an app another body than the client's, which was read from `receive`."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_next() -> Any:
        # Behind the body only the news that the client has left is of interest.
        return messages.pop() if messages else await receive()

    return receive_next
