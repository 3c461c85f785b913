from __future__ import annotations

import pytest

from meshserve.protocol import mesh_secret

SECRET = b"s" * 43
HEADER = (b"x-mesh-secret", SECRET)
OTHERS = [(b"host", b"x"), (b"x-mesh-model", b"m")]


@pytest.mark.parametrize(
    ("headers", "is_right"),
    [
        ([HEADER], True),
        ([*OTHERS, HEADER], True),
        ([], False),
        (OTHERS, False),
        ([(b"x-mesh-secret", b"")], False),
        ([(b"x-mesh-secret", SECRET[:-1])], False),
        ([(b"x-mesh-secret", SECRET + b"s")], False),
        ([(b"x-mesh-secrets", SECRET)], False),
        ([(b"authorization", SECRET)], False),
        ([(b"x-mesh-secret", "ä".encode("latin-1"))], False),
    ],
)
def test_only_the_whole_secret_under_its_name_matches(
    headers: list[mesh_secret.Header], is_right: bool
) -> None:
    others = [header for header in headers if header[0] != b"x-mesh-secret"]
    assert mesh_secret.take(SECRET, headers) == (others if is_right else None)


def test_every_header_of_the_name_is_removed() -> None:
    assert mesh_secret.take(SECRET, [HEADER, *OTHERS, (b"x-mesh-secret", b"other")]) == OTHERS


def test_nothing_is_sent_where_there_is_no_secret() -> None:
    assert mesh_secret.to_send("") == {}
    assert mesh_secret.to_send("s") == {"x-mesh-secret": "s"}
