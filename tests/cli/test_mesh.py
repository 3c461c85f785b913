import json
import socket

import pytest

from meshserve import errors
from meshserve.cli import mesh
from tests import support


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MESHSERVE_HOME", str(tmp_path))
    return tmp_path


def ask(endpoint, method="GET", path="/mesh/v1/status", **more):
    with mesh.connect(endpoint) as there:
        return there.ask(method, path, **more)


def test_the_mesh_that_is_named(fake):
    assert ask(fake.endpoint).json()["state"] == "ready"


def test_the_mesh_that_was_started_here(fake, home):
    (home / "mesh.json").write_text(json.dumps({"endpoint": fake.endpoint, "pid": 1}))
    with mesh.connect(None) as there:
        assert there.endpoint == fake.endpoint


def test_no_mesh_was_started_here(home):
    with pytest.raises(
        errors.Unavailable,
        match=rf"no mesh was started from this machine \({home}/mesh.json is not there\)",
    ):
        ask(None)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_what_was_left_by_a_start_can_not_be_read(home, text):
    (home / "mesh.json").write_text(text)
    with pytest.raises(errors.Unavailable, match=r"mesh\.json can't be read"):
        ask(None)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("127.0.0.1:80", "http://127.0.0.1:80"),
        ("https://mesh.example/", "https://mesh.example"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_endpoints(endpoint, url):
    assert mesh.normal(endpoint) == url


@pytest.mark.parametrize(
    "endpoint", ["ftp://host", "http://", "http://host:port", "://", "http://host/path", "host?x=1"]
)
def test_what_is_no_endpoint(endpoint):
    with pytest.raises(errors.ConfigInvalid, match=r"^--endpoint "):
        mesh.normal(endpoint)


def test_nobody_answers():
    port = support.free_port()
    with pytest.raises(
        errors.Unavailable,
        match=rf"^no mesh answers at http://127\.0\.0\.1:{port} \(.*refused\); start one with",
    ):
        ask(f"127.0.0.1:{port}")


def test_an_answer_that_does_not_come():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(
            errors.DeadlineExceeded, match=rf"{place} did not answer within 0\.05 s"
        ):
            ask(place, timeout_s=0.05)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, '{"error": "model \'x\' is\\nnot registered"}', "model 'x' is not registered"),
        (
            503,
            "no healthy upstream",
            "the mesh at {endpoint} answered 503 Service Unavailable: no healthy upstream",
        ),
        (500, "[]", "the mesh at {endpoint} answered 500 Internal Server Error: []"),
        (401, '{"error": "who are you"}', "who are you (the key is read from MESHSERVE_API_KEY)"),
    ],
)
def test_what_the_mesh_says_is_one_line(fake, status, body, message):
    fake.refusal = status, body
    with pytest.raises(errors.MeshError) as caught:
        ask(fake.endpoint)
    assert caught.value.message == message.format(endpoint=fake.endpoint)


def test_something_else_answers(fake):
    fake.refusal = 200, "<html>welcome</html>"
    with pytest.raises(
        errors.Unavailable, match=r"^what answers at .* is no mesh: <html>welcome</html>$"
    ):
        ask(fake.endpoint)


@pytest.mark.parametrize(("key", "header"), [("s3cret", "Bearer s3cret"), ("", None)])
def test_the_key_comes_from_the_environment(fake, monkeypatch, key, header):
    monkeypatch.setenv("MESHSERVE_API_KEY", key)
    ask(fake.endpoint)
    assert fake.keys == [header]


def test_names_are_quoted_in_paths_and_nothing_is_asked_for_that_was_not_given(fake):
    with mesh.connect(fake.endpoint) as there:
        there.model("PUT", "a b%/é", None, {"uri": "/x"})
        there.models(prefix="a b", limit=3, after=None)
    assert [asked[:2] for asked in fake.asked] == [
        ("PUT", "/mesh/v1/models/a%20b%25%2F%C3%A9"),
        ("GET", "/mesh/v1/models?prefix=a+b&limit=3"),
    ]
