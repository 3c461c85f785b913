"""A line in the controller's log for each call that changes something: who, what, and how it ended.

Reads have none: they change nothing, and a dashboard makes thousands of them.
"""

from __future__ import annotations

import logging

from starlette.types import Message, Scope, Send

from meshserve.control import caller
from meshserve.protocol import paths

READS = frozenset({"GET", "HEAD", "OPTIONS"})
READING_ENDS = ("/index", "/getModelStatus", "/getVModelStatus", "/RepositoryIndex")
"""Ends of paths that are POSTs by their protocols, and read."""

logger = logging.getLogger(__name__)


def is_change(scope: Scope) -> bool:
    """Return whether a call may change something; the gateways' own calls are none."""
    path: str = scope["path"]
    is_own = path == paths.HOLD
    return not is_own and scope["method"] not in READS and not path.endswith(READING_ENDS)


class CallLog:
    """Sends one call's answer on, and then logs the call."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._what = f"{scope['method']} {scope['path']}"
        self._send = send
        self._status = 0

    async def send(self, message: Message) -> None:
        """Send a part of the answer; log the call after its last one."""
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            # What a gRPC call ends with is a header for Envoy, beside the status 200.
            self._status = headers.get(b"grpc-status", b"").decode() or message["status"]
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            who = caller.name() or "a client without a key"
            logger.info("%s by %s: %s", self._what, who, self._status)
