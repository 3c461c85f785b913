"""The secret by which the processes of one mesh know each other where others can connect.

Envoy and the sidecar send it as a header. Clients never see it: Envoy drops theirs and adds its own
behind the gateway, and a server removes it before a model or an engine gets the headers.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from meshserve.protocol import paths

Header = tuple[bytes, bytes]
NAME = paths.SECRET_HEADER.encode()
REFUSAL = b'{"error": "this address is for the mesh alone: send requests to its gateway"}'
REFUSAL_HEADERS = ((b"content-type", b"application/json"), (b"connection", b"close"))


def matches(secret: bytes, headers: Iterable[Header]) -> bool:
    """Return whether the headers, with names in lower case, hold the secret."""
    values = (value for name, value in headers if name == NAME)
    # The time of a usual comparison tells how many bytes are right.
    return any(hmac.compare_digest(value, secret) for value in values)


def without(headers: Iterable[Header]) -> list[Header]:
    """Return the headers but for the secret."""
    return [header for header in headers if header[0] != NAME]


def to_send(secret: str) -> dict[str, str]:
    """Return the headers by which a client of the same mesh is known; none without a secret."""
    return {paths.SECRET_HEADER: secret} if secret else {}
