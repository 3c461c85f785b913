import grpc
import pytest

from meshserve import errors
from meshserve.client import channels
from tests import support


@pytest.mark.parametrize(
    ("endpoint", "target", "is_secure"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", False),
        ("http://mesh:80/", "mesh:80", False),
        ("https://mesh.example", "mesh.example", True),
        ("[::1]:8080", "[::1]:8080", False),
    ],
)
def test_endpoints(endpoint: str, target: str, is_secure: bool) -> None:
    assert channels.parse_endpoint(endpoint) == (target, is_secure)


@pytest.mark.parametrize("endpoint", ["", "ftp://mesh:1", "http://mesh:80/v2", "http://"])
def test_other_text_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        channels.parse_endpoint(endpoint)


def test_a_key_is_a_bearer_token() -> None:
    assert channels.metadata("k") == (("authorization", "Bearer k"),)
    assert channels.metadata(None) == ()


def test_any_answer_to_a_health_check_is_a_server(endpoint: str) -> None:
    # The server of these tests has no health service, and says so.
    with pytest.raises(errors.Unsupported):
        channels.check_health(endpoint, 5.0)


def test_no_answer_to_a_health_check_is_no_server() -> None:
    with pytest.raises(errors.Unavailable):
        channels.check_health(f"127.0.0.1:{support.free_port()}", 5.0)


def test_without_an_endpoint_it_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(channels.ENDPOINT, raising=False)
    with pytest.raises(ValueError, match="MESHSERVE_ENDPOINT must be set"):
        channels.connect("", grpc)
    monkeypatch.setenv(channels.ENDPOINT, "127.0.0.1:9")
    channels.connect("", grpc).close()
