"""A request as the worker's methods see it, whatever protocol it came by."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from meshserve.protocol import error_responses

PATIENCE_S = 600.0
"""How long a request that names no deadline waits for its model and its turn."""

GRPC_HEADERS = (error_responses.GRPC_TYPE,)

Answer = tuple[int, Sequence[error_responses.Header], bytes]
"""Status, headers and body."""


class InferenceRequest:
    """One request. `path` is as the client wrote it, still quoted; `expires_s` is on the event loop's clock.

    `named` is the model that gRPC metadata names instead of the message.
    """

    __slots__ = ("body", "expires_s", "headers", "method", "named", "path")

    def __init__(
        self, method: str, path: bytes, headers: Sequence[error_responses.Header], body: bytes
    ) -> None:
        self.path = path.decode("latin-1")
        self.method = method
        self.headers = headers
        self.body = body
        self.named = ""
        self.expires_s = asyncio.get_running_loop().time() + PATIENCE_S
        for name, value in self.headers:
            if name == b"grpc-timeout":
                self.expires_s += error_responses.timeout_s(value) - PATIENCE_S
            elif name[:3] == b"mm-":
                self.named = error_responses.named_by(self.headers)
