"""The secret by which the processes of one mesh know each other where others can connect.

Envoy and the sidecar send it as a header. Clients never see it: Envoy drops theirs and adds its own
behind the gateway, and a server removes it before a model or an engine gets the headers.
"""

from __future__ import annotations

import hmac

from meshserve.protocol import paths

Header = tuple[bytes, bytes]
NAME = paths.SECRET_HEADER.encode()
REFUSAL = b'{"error": "this address is for the mesh alone: send requests to its gateway"}'
REFUSAL_HEADERS = ((b"content-type", b"application/json"), (b"connection", b"close"))


def take(secret: bytes, headers: list[Header]) -> list[Header] | None:
    """Return the headers, whose names are in lower case, without the secret; None if it lacks."""
    # The time of a usual comparison tells how many bytes are right.
    is_right = hmac.compare_digest
    # Where Envoy puts it: a loop over all of them would take longer than the comparison.
    if headers and headers[-1][0] == NAME and is_right(headers[-1][1], secret):
        return headers[:-1]
    if any(name == NAME and is_right(value, secret) for name, value in headers):
        return [header for header in headers if header[0] != NAME]
    return None


def to_send(secret: str) -> dict[str, str]:
    """Return the headers by which a client of the same mesh is known; none without a secret."""
    return {paths.SECRET_HEADER: secret} if secret else {}
