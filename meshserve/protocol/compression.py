"""Inflate compressed bodies of REST requests; those of gRPC are inflated by the gateway."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from meshserve import errors

BYTES_MAX_HEADER = "x-mesh-inflated-bytes-max"
"""The header with `request_bytes_max`: the gateway itself sees only the compressed size."""

BYTES_MAX = 64 << 20
"""The limit for a request without the header, which did not come through the gateway."""

ANY_WINDOW = zlib.MAX_WBITS | 32
"""The window size with which zlib detects by itself whether the format is gzip or zlib."""

# x-gzip is an old name of gzip (RFC 9110, 8.4.1.3).
CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate"})

_LIMIT = BYTES_MAX_HEADER.encode()


def inflate(body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the body decompressed as `content-encoding` says.

    Raises InvalidRequest for other codings and broken bodies, PayloadTooLarge above the limit.
    """
    coding, bytes_max = b"", BYTES_MAX
    for name, value in headers:
        if name == b"content-encoding":
            coding = value.strip().lower()
        elif name == _LIMIT:
            # A number for sure: Envoy drops a client's own `x-mesh-` headers.
            bytes_max = int(value)
    if coding in (b"identity", b""):
        return body
    if coding not in CODINGS:
        raise errors.InvalidRequest(
            f"content-encoding {coding.decode('latin-1')!r} is unknown; there are: gzip, deflate"
        )
    try:
        return _inflated(body, bytes_max)
    except zlib.error:
        raise errors.InvalidRequest(
            f"the body is not {coding.decode()}, as its content-encoding says"
        ) from None


def _inflated(body: bytes, bytes_max: int) -> bytes:
    """Return the content of all members of a body: gzip allows several (RFC 1952, 2.2)."""
    parts: list[bytes] = []
    size_bytes = 0
    while True:
        inflater = zlib.decompressobj(ANY_WINDOW)
        # To zlib a limit of 0 means no limit.
        part = inflater.decompress(body, bytes_max - size_bytes + 1)
        parts.append(part)
        size_bytes += len(part)
        if size_bytes > bytes_max:
            raise errors.PayloadTooLarge(
                f"the body unpacks to more than {bytes_max} bytes (gateway.request_bytes_max)"
            )
        if not inflater.eof:
            raise errors.InvalidRequest("the compressed body was cut short")
        # Zeros may follow the last member, as in the gzip program.
        body = inflater.unused_data.lstrip(b"\0")
        if not body:
            return parts[0] if len(parts) == 1 else b"".join(parts)
