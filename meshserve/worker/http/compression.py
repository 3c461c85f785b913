"""Bodies that came compressed over REST; over gRPC the gateway's node undoes it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from meshserve import errors
from meshserve.protocol import error_responses

ENCODING = b"content-encoding"
BYTES_MAX = 256 << 20
"""What a body may unpack to: the gateway's limit sees only what was sent."""

WINDOW_OF_ANY = zlib.MAX_WBITS | 32
CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate"})


def inflated(body: bytes, headers: Iterable[error_responses.Header]) -> bytes:
    """The body as it was before it was compressed. Raises InvalidRequest, or PayloadTooLarge."""
    coding = next(
        (value.strip().lower() for name, value in headers if name == ENCODING), b"identity"
    )
    if coding in (b"identity", b""):
        return body
    if coding not in CODINGS:
        raise errors.InvalidRequest(
            f"content-encoding {coding.decode('latin-1')!r} is unknown; there are: gzip, deflate"
        )
    unpacking = zlib.decompressobj(WINDOW_OF_ANY)
    try:
        unpacked = unpacking.decompress(body, BYTES_MAX)
    except zlib.error:
        raise errors.InvalidRequest(
            f"the body is not {coding.decode()}, as its content-encoding says"
        ) from None
    if unpacking.unconsumed_tail:
        raise errors.PayloadTooLarge(f"the body unpacks to more than {BYTES_MAX} bytes")
    if not unpacking.eof:
        raise errors.InvalidRequest("the compressed body was cut short")
    return unpacked
