from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshserve.launch import mesh_file
from tests import support
from tests.launch import conftest


def test_a_reader_sees_the_old_content_or_the_new_one(tmp_path: Path) -> None:
    mesh_file.write(tmp_path, mesh_file.MeshFile("http://h:1", 7, "/c.yaml"))
    with (tmp_path / mesh_file.NAME).open() as opened:
        mesh_file.write(tmp_path, mesh_file.MeshFile("http://h:2", 8, "/c.yaml"))
        assert json.load(opened)["endpoint"] == "http://h:1"
    assert mesh_file.read(tmp_path) == mesh_file.MeshFile("http://h:2", 8, "/c.yaml")
    assert [path.name for path in tmp_path.iterdir()] == [mesh_file.NAME]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"endpoint": "http://h:1", "new": 1}'])
def test_an_unreadable_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / mesh_file.NAME).write_text(text)
    assert mesh_file.read(tmp_path) is None


def test_the_endpoint_of_a_mesh_moves(tmp_path: Path) -> None:
    mesh_file.move(tmp_path, "http://h:2")
    assert mesh_file.read(tmp_path) is None
    mesh_file.write(tmp_path, mesh_file.MeshFile("http://h:1", 7, "/c.yaml"))
    for endpoint in ("http://h:1", "http://h:2"):
        mesh_file.move(tmp_path, endpoint)
        assert mesh_file.read(tmp_path) == mesh_file.MeshFile(endpoint, 7, "/c.yaml")


def test_removing_a_missing_file_is_no_error(tmp_path: Path) -> None:
    mesh_file.write(tmp_path, mesh_file.MeshFile("http://h:1"))
    for _ in range(2):
        mesh_file.remove(tmp_path)
    assert mesh_file.read(tmp_path) is None


def test_a_mesh_that_answers_is_running(mesh: conftest.StubMesh, tmp_path: Path) -> None:
    mesh_file.write(tmp_path, mesh_file.MeshFile(mesh.endpoint))
    assert mesh_file.running_endpoint(tmp_path) == mesh.endpoint


def test_a_mesh_that_does_not_answer_is_not_running(tmp_path: Path) -> None:
    assert mesh_file.running_endpoint(tmp_path) is None
    endpoint = f"http://127.0.0.1:{support.free_port()}"
    mesh_file.write(tmp_path, mesh_file.MeshFile(endpoint))
    assert mesh_file.running_endpoint(tmp_path) is None


def test_another_server_at_the_endpoint_is_no_running_mesh(
    mesh: conftest.StubMesh, tmp_path: Path
) -> None:
    mesh_file.write(tmp_path, mesh_file.MeshFile(mesh.endpoint))
    mesh.answers.clear()
    assert mesh_file.running_endpoint(tmp_path) is None
