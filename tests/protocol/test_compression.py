from __future__ import annotations

import gzip
import zlib

import pytest

from meshserve import errors
from meshserve.protocol import compression

BODY = b'{"inputs": []}' * 50
GZIPPED = gzip.compress(BODY, mtime=0)


def headers(coding: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"a"), (b"content-encoding", coding)]


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        (b"gzip", GZIPPED),
        (b"GZIP", GZIPPED),
        (b"deflate", zlib.compress(BODY)),
        (b"identity", BODY),
        (b"", BODY),
    ],
)
def test_bodies_are_unpacked(coding: bytes, packed: bytes) -> None:
    assert compression.inflate(packed, headers(coding)) == BODY


def test_a_body_without_an_encoding_is_unchanged() -> None:
    packed = GZIPPED
    assert compression.inflate(packed, [(b"host", b"a")]) is packed


@pytest.mark.parametrize(
    ("coding", "packed", "words"),
    [
        (b"br", BODY, "'br' is unknown; there are: gzip, deflate"),
        (b"gzip", BODY, "the body is not gzip"),
        (b"deflate", b"\xff" + BODY, "the body is not deflate"),
        (b"gzip", GZIPPED[:-9], "cut short"),
        (b"gzip", b"", "cut short"),
        (b"\xff\n", BODY, "is unknown"),
    ],
)
def test_a_broken_compressed_body_is_refused(coding: bytes, packed: bytes, words: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=words):
        compression.inflate(packed, headers(coding))


def limited(coding: bytes, bytes_max: int) -> list[tuple[bytes, bytes]]:
    name = compression.BYTES_MAX_HEADER.encode()
    return [*headers(coding), (name, b"%d" % bytes_max)]


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_a_body_is_never_inflated_beyond_the_requests_limit(coding: bytes) -> None:
    pack = gzip.compress if coding == b"gzip" else zlib.compress
    size = 1 << 20
    assert len(compression.inflate(pack(bytes(size)), limited(coding, size))) == size
    with pytest.raises(errors.PayloadTooLarge, match="unpacks to more than 1048576 bytes"):
        compression.inflate(pack(bytes(size + 1)), limited(coding, size))
    with pytest.raises(errors.PayloadTooLarge):
        compression.inflate(pack(bytes(size)) * 2, limited(coding, size))


def test_a_body_has_a_limit_without_the_gateway_too() -> None:
    with pytest.raises(errors.PayloadTooLarge):
        compression.inflate(zlib.compress(bytes(compression.BYTES_MAX + 1)), headers(b"deflate"))


@pytest.mark.parametrize("cut", [0, 30, len(BODY)])
def test_all_members_of_a_gzip_file_count(cut: int) -> None:
    packed = gzip.compress(BODY[:cut]) + gzip.compress(BODY[cut:])
    assert compression.inflate(packed, headers(b"gzip")) == BODY
    assert compression.inflate(packed + bytes(8), headers(b"gzip")) == BODY


@pytest.mark.parametrize("behind", [b"x", b"\x1f\x8b", gzip.compress(b"x", mtime=0)[:-1]])
def test_bytes_behind_a_member_that_are_none_are_refused(behind: bytes) -> None:
    with pytest.raises(errors.InvalidRequest):
        compression.inflate(GZIPPED + behind, headers(b"gzip"))
