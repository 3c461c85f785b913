"""The management client against a mesh that answers over real HTTP."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from meshserve import errors
from meshserve.client import admin
from tests import support
from tests.cli import fake_mesh


@pytest.fixture
def mesh() -> Iterator[fake_mesh.FakeMesh]:
    with fake_mesh.serving() as serving:
        yield serving


@pytest.fixture
def client(mesh: fake_mesh.FakeMesh) -> Iterator[admin.AdminClient]:
    with admin.AdminClient(mesh.endpoint) as connected:
        yield connected


def test_status_and_models_are_returned_as_the_mesh_has_them(
    client: admin.AdminClient, mesh: fake_mesh.FakeMesh
) -> None:
    assert client.status() == mesh.state
    page = client.models(prefix="digits", limit=1)
    assert [model["name"] for model in page["models"]] == ["digits"]
    assert page["next"] == "digits"


def test_models_are_registered_pinned_and_removed(client: admin.AdminClient) -> None:
    assert client.register("new", {"uri": "/x", "pinned": False})["uri"] == "/x"
    assert client.pin("new")["pinned"]
    assert not client.unpin("new")["pinned"]
    assert client.load("new") == client.unload("new") == client.model("new")
    assert client.release("new") == client.model("new")
    client.remove("new")
    with pytest.raises(errors.MeshError, match="'new' is not registered"):
        client.model("new")


def test_names_are_quoted_in_paths_and_absent_arguments_left_out(
    client: admin.AdminClient, mesh: fake_mesh.FakeMesh
) -> None:
    client.register("a b%/é", {"uri": "/x"})
    client.pin("a b%/é", "2")
    client.models(prefix="a b", limit=3, after=None)
    assert [(method, path) for method, path, _ in mesh.requests] == [
        ("PUT", "/mesh/v1/models/a%20b%25%2F%C3%A9"),
        ("POST", "/mesh/v1/models/a%20b%25%2F%C3%A9/pin?version=2"),
        ("GET", "/mesh/v1/models?prefix=a+b&limit=3"),
    ]


def test_apply_sends_the_document_and_returns_the_changes(
    client: admin.AdminClient, mesh: fake_mesh.FakeMesh
) -> None:
    mesh.refusal = 200, '{"changes": ["model a:1 added"]}'
    assert client.apply({"models": []}) == ["model a:1 added"]
    assert mesh.requests == [("POST", "/mesh/v1/apply", {"models": []})]


def test_a_refused_configuration_keeps_its_lines(
    client: admin.AdminClient, mesh: fake_mesh.FakeMesh
) -> None:
    mesh.refusal = 400, json.dumps({"error": "a: wrong\nb: wrong"})
    with pytest.raises(errors.ConfigInvalid, match=r"^a: wrong\nb: wrong$"):
        client.apply({})
    with pytest.raises(errors.MeshError, match=r"^a: wrong b: wrong$") as caught:
        client.model("x")
    assert not isinstance(caught.value, errors.ConfigInvalid)


def test_drain_is_an_order_without_a_body(
    client: admin.AdminClient, mesh: fake_mesh.FakeMesh
) -> None:
    mesh.refusal = 200, '{"draining": true}'
    client.drain()
    assert mesh.requests == [("POST", "/mesh/v1/drain", None)]


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
def test_refusals_are_one_line(
    client: admin.AdminClient, mesh: fake_mesh.FakeMesh, status: int, body: str, message: str
) -> None:
    mesh.refusal = status, body
    with pytest.raises(errors.MeshError) as caught:
        client.status()
    assert caught.value.message == message.format(endpoint=mesh.endpoint)


def test_another_server_at_the_endpoint_is_no_mesh(
    client: admin.AdminClient, mesh: fake_mesh.FakeMesh
) -> None:
    mesh.refusal = 200, "<html>welcome</html>"
    with pytest.raises(errors.Unavailable, match=r"^what answers at .* is no mesh: <html>welcome"):
        client.status()


def test_no_server_at_the_endpoint() -> None:
    port = support.free_port()
    with admin.AdminClient(f"http://127.0.0.1:{port}") as client:
        assert not client.is_answering()
        words = rf"^no mesh answers at http://127\.0\.0\.1:{port} \(.*refused\); start one with"
        with pytest.raises(errors.Unavailable, match=words):
            client.status()


def test_a_silent_server_is_not_awaited_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with admin.AdminClient(endpoint) as client:
            words = rf"{endpoint} did not answer within 0\.05 s"
            with pytest.raises(errors.DeadlineExceeded, match=words):
                client.status(timeout_s=0.05)


@pytest.mark.parametrize(
    ("status", "is_answering"), [(200, True), (503, True), (404, False), (401, False)]
)
def test_a_mesh_that_is_not_ready_answers_all_the_same(
    client: admin.AdminClient, mesh: fake_mesh.FakeMesh, status: int, is_answering: bool
) -> None:
    mesh.refusal = status, ""
    assert client.is_answering() == is_answering


@pytest.mark.parametrize(
    ("api_key", "environment", "header"),
    [
        ("", "s3cret", "Bearer s3cret"),
        ("own", "s3cret", "Bearer own"),
        ("", "", None),
    ],
)
def test_the_key_is_the_argument_or_the_environments(
    mesh: fake_mesh.FakeMesh,
    monkeypatch: pytest.MonkeyPatch,
    api_key: str,
    environment: str,
    header: str | None,
) -> None:
    monkeypatch.setenv("MESHSERVE_API_KEY", environment)
    with admin.AdminClient(mesh.endpoint, api_key) as client:
        client.status()
    assert mesh.keys == [header]


def test_importing_the_client_of_the_management_api_is_cheap() -> None:
    heavy = {"grpc", "numpy", "google.protobuf", "ray", "pydantic"}
    program = (
        "import sys; from meshserve.client import admin; "
        f"sys.exit(' '.join({heavy} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
