import pytest

from meshserve.client import channels


@pytest.mark.parametrize(
    ("endpoint", "target", "is_secure"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", False),
        ("http://mesh:80/", "mesh:80", False),
        ("https://mesh.example", "mesh.example", True),
        ("[::1]:8080", "[::1]:8080", False),
    ],
)
def test_endpoints(endpoint, target, is_secure):
    assert channels.place(endpoint) == (target, is_secure)


@pytest.mark.parametrize("endpoint", ["", "ftp://mesh:1", "http://mesh:80/v2", "http://"])
def test_what_is_no_endpoint(endpoint):
    with pytest.raises(ValueError, match="expected host:port"):
        channels.place(endpoint)


def test_a_key_is_a_bearer_token():
    assert channels.metadata("k") == (("authorization", "Bearer k"),)
    assert channels.metadata(None) == ()
