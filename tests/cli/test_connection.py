from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshserve import errors
from meshserve.cli import connection
from meshserve.launch import secret_file
from meshserve.protocol import paths
from tests.cli import fake_mesh


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHSERVE_HOME", str(tmp_path))
    return tmp_path


def test_a_named_mesh_is_asked(fake: fake_mesh.FakeMesh) -> None:
    with connection.connect(fake.endpoint) as client:
        assert client.status()["state"] == "ready"


def test_the_mesh_that_was_started_here_is_found(fake: fake_mesh.FakeMesh, home: Path) -> None:
    (home / "mesh.json").write_text(json.dumps({"endpoint": fake.endpoint, "pid": 1}))
    with connection.connect(None) as client:
        assert client.endpoint == fake.endpoint


def test_only_the_mesh_that_was_started_here_gets_its_owners_key(
    fake: fake_mesh.FakeMesh, home: Path
) -> None:
    key = secret_file.create_owner_key(home)
    other = "http://127.0.0.1:9"
    for noted, endpoint, sent in [
        (fake.endpoint, None, key),
        (fake.endpoint, fake.endpoint, key),
        (other, fake.endpoint, None),
    ]:
        (home / "mesh.json").write_text(json.dumps({"endpoint": noted, "pid": 1}))
        with connection.connect(endpoint) as client:
            assert client._http.headers.get(paths.OWNER_HEADER) == sent


def test_no_mesh_was_started_here(home: Path) -> None:
    with pytest.raises(
        errors.Unavailable,
        match=rf"no mesh was started from this machine \({home}/mesh.json is not there\)",
    ):
        connection.connect(None)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_an_unreadable_mesh_file_is_named(home: Path, text: str) -> None:
    (home / "mesh.json").write_text(text)
    with pytest.raises(errors.Unavailable, match=r"mesh\.json can't be read"):
        connection.connect(None)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("127.0.0.1:80", "http://127.0.0.1:80"),
        ("https://mesh.example/", "https://mesh.example"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_an_endpoint_becomes_a_url(endpoint: str, url: str) -> None:
    assert connection.parse_endpoint(endpoint) == url


@pytest.mark.parametrize(
    "endpoint", ["ftp://host", "http://", "http://host:port", "://", "http://host/path", "host?x=1"]
)
def test_a_malformed_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(errors.ConfigInvalid, match=r"^--endpoint "):
        connection.parse_endpoint(endpoint)
