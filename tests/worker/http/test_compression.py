from __future__ import annotations

import gzip
import zlib

import pytest

from meshserve import errors
from meshserve.worker.http import compression

BODY = b'{"inputs": []}' * 50
GZIPPED = gzip.compress(BODY, mtime=0)


def headers(coding):
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
def test_bodies_are_unpacked(coding, packed):
    assert compression.inflated(packed, headers(coding)) == BODY


def test_a_body_that_says_nothing_is_as_it_is():
    packed = GZIPPED
    assert compression.inflated(packed, [(b"host", b"a")]) is packed


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
def test_what_can_not_be_unpacked_is_refused(coding, packed, words):
    with pytest.raises(errors.InvalidRequest, match=words):
        compression.inflated(packed, headers(coding))


def test_a_small_body_can_not_become_a_huge_one(monkeypatch):
    monkeypatch.setattr(compression, "BYTES_MAX", 1 << 20)
    assert len(compression.inflated(zlib.compress(bytes(1 << 20)), headers(b"deflate"))) == 1 << 20
    with pytest.raises(errors.PayloadTooLarge, match="unpacks to more than 1048576 bytes"):
        compression.inflated(zlib.compress(bytes((1 << 20) + 1)), headers(b"deflate"))
